"""The text side of a bundle: one unit embedding per class, averaged over its prompts."""

import numpy as np
import numpy.typing as npt

from fedmedclip.export.model import LoadedModel
from fedmedclip.export.one_thread import one_thread
from fedmedclip.protocol.bundle.bundle import ClassPrompts
from fedmedclip.protocol.bundle.prompts import prompt_ensemble, prompt_texts
from fedmedclip.protocol.errors import InvalidInputError

PROMPTS_PER_BATCH = 64


def embed_classes(loaded: LoadedModel, prompts: ClassPrompts) -> npt.NDArray[np.float32]:
    """Return float32 (classes, D), rows of unit length, in the order of `prompts.classes`.

    Every template is filled with every phrase of a class, as `protocol.bundle.prompts` says.

    Raises InvalidInputError when an embedding is not finite, as with weights that are damaged.
    """
    embeddings = np.stack([_embed_class(loaded, prompts.templates, p) for p in prompts.classes.values()])
    if not np.isfinite(embeddings).all():
        raise InvalidInputError(
            f"the text tower of {loaded.source.shown_name} gives NaN or infinite values; "
            "its weights are damaged"
        )
    return embeddings


def _embed_class(loaded: LoadedModel, templates: list[str], phrases: list[str]) -> npt.NDArray[np.float32]:
    """Return the unit embedding, float32 (D,), of one class."""
    texts = prompt_texts(templates, phrases)
    starts = range(0, len(texts), PROMPTS_PER_BATCH)
    return prompt_ensemble(
        np.concatenate([embed_texts(loaded, texts[start : start + PROMPTS_PER_BATCH]) for start in starts])
    )


def embed_texts(loaded: LoadedModel, texts: list[str]) -> npt.NDArray[np.float32]:
    """Return open_clip's unit embeddings of texts, float32 (texts, D)."""
    import torch

    with one_thread(), torch.no_grad():
        embeddings: npt.NDArray[np.float32] = loaded.network.encode_text(
            loaded.tokenizer(texts), normalize=True
        ).numpy()
    return embeddings
