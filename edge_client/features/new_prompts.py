"""Zero-shot classes of the user's own, in the place of those that a bundle was exported with."""

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from fedmedclip.edge_client.features.text_encoder import TextEncoder
from fedmedclip.protocol.bundle.bundle import Bundle, ClassPrompts, open_bundle
from fedmedclip.protocol.bundle.prompts import prompt_ensemble, prompt_texts, read_classes_toml
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.trust.decision import Trust


def open_with_prompts(
    folder: Path, prompts_file: Path | None, heads_file: Path | None, threads: int | None, trust: Trust
) -> Bundle:
    """Open a bundle, with the classes of a `classes.toml` instead of its own where one is given.

    Raises InvalidInputError when there are heads too, which know the bundle's own classes only, and
    BundleError when the bundle is damaged, not to be trusted, or has no text tower to embed new prompts with.
    """
    if prompts_file is None:
        bundle = open_bundle(folder, with_text=False)
        trust.require_bundle(bundle)
        return bundle
    if heads_file is not None:
        raise InvalidInputError(
            f"the heads {heads_file} were trained for the classes of their bundle, not for those of "
            f"{prompts_file}; give --heads or --prompts, not both"
        )
    bundle = open_bundle(folder)
    trust.require_bundle(bundle)
    return with_prompts(bundle, read_classes_toml(prompts_file), threads)


def with_prompts(bundle: Bundle, prompts: ClassPrompts, threads: int | None = None) -> Bundle:
    """Return the bundle with other classes. Its digest stays: images have the embeddings that they had."""
    manifest = msgspec.structs.replace(bundle.manifest, class_names=list(prompts.classes), prompts=prompts)
    return replace(bundle, manifest=manifest, class_embeddings=embed_classes(bundle, prompts, threads))


def embed_classes(
    bundle: Bundle, prompts: ClassPrompts, threads: int | None = None
) -> npt.NDArray[np.float32]:
    """Return unit embeddings, float32 (classes, D), as an export with these prompts would write them."""
    with TextEncoder(bundle, threads) as encoder:
        return np.stack(
            [
                prompt_ensemble(encoder.encode(prompt_texts(prompts.templates, phrases)))
                for phrases in prompts.classes.values()
            ]
        )
