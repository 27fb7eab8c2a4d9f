"""The text side of a bundle: one unit embedding per class, averaged over its prompts."""

import numpy as np
import numpy.typing as npt

from export.model import LoadedModel
from protocol.bundle import ClassPrompts
from protocol.errors import InvalidInputError

PROMPTS_PER_BATCH = 64


def embed_classes(loaded: LoadedModel, prompts: ClassPrompts) -> npt.NDArray[np.float32]:
    """Return float32 (classes, D), rows of unit length, in the order of `prompts.classes`.

    Every template is filled with every phrase of a class; the unit embeddings of these prompts are averaged
    and scaled to unit length again (prompt ensembling, Radford et al. 2021, section 3.1.4).

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
    import torch

    texts = [template.replace("{}", phrase) for template in templates for phrase in phrases]
    with torch.no_grad():
        batches = [
            loaded.network.encode_text(
                loaded.tokenizer(texts[start : start + PROMPTS_PER_BATCH]), normalize=True
            )
            for start in range(0, len(texts), PROMPTS_PER_BATCH)
        ]
        mean = torch.cat(batches).mean(dim=0)
        embedding: npt.NDArray[np.float32] = torch.nn.functional.normalize(mean, dim=0).numpy()
    return embedding
