"""The export itself: from a model's name to a bundle whose encoder was compared with the original."""

import hashlib
import io
import math
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from export.bundle_writer import check_target, new_bundle
from export.class_embeddings import embed_classes
from export.image_encoder import encoder_to_onnx
from export.model import LoadedModel, load_model
from export.parity import measure_parity
from export.parity_images import generated_images, images_in
from export.quantize import quantize_matrix_products
from export.text_tower import text_versions, write_text_tower
from protocol.bundle import (
    CLASS_EMBEDDINGS,
    FORMAT,
    IMAGE_ENCODER,
    MANIFEST,
    Bundle,
    ClassPrompts,
    Manifest,
    open_bundle,
)
from protocol.errors import InvalidInputError


def export_bundle(
    model: str,
    pretrained: str | None,
    prompts: ClassPrompts,
    out: Path,
    precision: Literal["fp32", "int8"] = "fp32",
    report: Callable[[str], None] = lambda step: None,
    force: bool = False,
    images: Path | None = None,
    with_text: bool = False,
) -> Bundle:
    """Export an open_clip model as a bundle, and return the bundle opened.

    `model` and `pretrained` are as for `export.model.load_model`. `report` is told each step before it
    begins. `images` is a folder to measure the parity on; without it, generated images are used. With
    `force`, a bundle at `out` is replaced. `with_text` adds the text tower and its tokenizer. The same
    inputs, versions and kind of processor give the same bytes.

    Raises InvalidInputError when an input cannot be used or the bundle not written, and ParityError when
    the encoder does not do what the model does; either way nothing is left at `out` that was not there.
    """
    check_target(out, force=force)
    report(f"loading {model}")
    loaded = load_model(model, pretrained)
    report(f"embedding the prompts of {len(prompts.classes)} classes")
    class_embeddings = embed_classes(loaded, prompts)
    report("writing the image encoder as ONNX")
    encoder, quantization = encoder_to_onnx(loaded), None
    if precision == "int8":
        report("making the weights 8-bit")
        encoder, quantization = quantize_matrix_products(encoder)
    contents = {
        IMAGE_ENCODER: encoder.SerializeToString(deterministic=True),
        CLASS_EMBEDDINGS: _npy(class_embeddings),
    }
    with new_bundle(out, force=force) as folder:
        for name, content in contents.items():
            (folder / name).write_bytes(content)
        text = None
        if with_text:
            report("writing the text tower as ONNX, and comparing it with open_clip")
            text = write_text_tower(loaded, prompts, folder)
        report("comparing with open_clip")
        compared = images_in(images) if images else generated_images()
        manifest = Manifest(
            format=FORMAT,
            model=loaded.source.shown_name,
            pretrained=loaded.source.shown_pretrained,
            precision=precision,
            embedding_size=class_embeddings.shape[1],
            logit_scale=_logit_scale(loaded),
            class_names=list(prompts.classes),
            prompts=prompts,
            preprocessing=loaded.preprocessing,
            parity=measure_parity(loaded, folder / IMAGE_ENCODER, compared, precision),
            versions=_versions() | (text_versions() if text else {}),
            files={path.name: _sha256(path) for path in sorted(folder.iterdir())},
            quantization=quantization,
            text=text,
        )
        (folder / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest)) + b"\n")
    return open_bundle(out)


def _logit_scale(loaded: LoadedModel) -> float:
    """Return what cosines are multiplied by before the softmax.

    A SigLIP's logit bias is left out: it is the same for every class, so the softmax does not see it.
    """
    scale = float(loaded.network.logit_scale.exp())
    if not math.isfinite(scale):
        raise InvalidInputError(
            f"{loaded.source.shown_name} has the logit scale {scale}; its weights are damaged"
        )
    return scale


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _npy(array: npt.NDArray[np.float32]) -> bytes:
    encoded = io.BytesIO()
    np.save(encoded, array, allow_pickle=False)
    return encoded.getvalue()


def _versions() -> dict[str, str]:
    """Return the versions that the bundle's bytes and figures depend on."""
    import onnx
    import onnxruntime
    import open_clip
    import PIL
    import torch

    modules = {
        "numpy": np,
        "onnx": onnx,
        "onnxruntime": onnxruntime,
        "open_clip": open_clip,
        "pillow": PIL,
        "torch": torch,
    }
    return {name: str(module.__version__) for name, module in modules.items()}
