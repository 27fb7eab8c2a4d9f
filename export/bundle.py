"""The export itself: from a model's name to a bundle whose encoder was compared with the original."""

import hashlib
import math
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np

from fedmedclip.export.bundle_writer import check_target, new_bundle
from fedmedclip.export.calibration import read_calibration
from fedmedclip.export.class_embeddings import embed_classes
from fedmedclip.export.image_encoder import encoder_to_onnx
from fedmedclip.export.model import LoadedModel, load_model
from fedmedclip.export.onnx_weights import write_model
from fedmedclip.export.parity import measure_parity, require_image_embeddings
from fedmedclip.export.parity_images import generated_images, images_in
from fedmedclip.export.precision import DEFAULT_LIMITS, Limits, in_precision
from fedmedclip.export.self_test import golden_contents
from fedmedclip.export.text_tower import text_versions, write_text_tower
from fedmedclip.protocol.bundle.bundle import (
    CLASS_EMBEDDINGS,
    FORMAT,
    IMAGE_ENCODER,
    MANIFEST,
    Bundle,
    ClassPrompts,
    Manifest,
    Precision,
    open_bundle,
)
from fedmedclip.protocol.bundle.self_test import encode_array
from fedmedclip.protocol.errors import InvalidInputError


def export_bundle(
    model: str,
    pretrained: str | None,
    prompts: ClassPrompts,
    out: Path,
    precision: Precision = "int8",
    report: Callable[[str], None] = lambda step: None,
    force: bool = False,
    images: Path | None = None,
    with_text: bool = False,
    calibrate: Path | None = None,
    limits: Limits = DEFAULT_LIMITS,
    own_length: bool = False,
) -> Bundle:
    """Export an open_clip model as a bundle, and return the bundle opened.

    `model` and `pretrained` are as for `export.model.load_model`. `report` is told each step before it
    begins. `images` is a folder to measure the parity on; without it, generated images are used. With
    `force`, a bundle at `out` is replaced. `with_text` adds the text tower and its tokenizer. `calibrate` is
    a folder of images to choose the form of an int8 encoder by, and `limits` say what that may lose. With
    `own_length` embeddings keep the length that the model gives them, as the papers' code feeds them. The
    same inputs, versions and kind of processor give the same bytes.

    Raises InvalidInputError when an input cannot be used or the bundle not written, and ParityError when
    the encoder does not do what the model does; either way nothing is left at `out` that was not there.
    """
    check_target(out, force=force)
    if calibrate and precision != "int8":
        raise InvalidInputError(f"--calibrate is for --precision int8, not {precision}; leave it out")
    if own_length and precision == "int8":
        raise InvalidInputError(
            "--own-length is for --precision fp32 or fp16: how 8 bits change a length is not measured"
        )
    report(f"loading {model}")
    loaded = load_model(model, pretrained)
    report(f"embedding the prompts of {len(prompts.classes)} classes")
    class_embeddings = embed_classes(loaded, prompts)
    require_image_embeddings(loaded)
    calibration = None
    if calibrate:
        report(f"reading the images of {calibrate}")
        names = list(prompts.classes)
        calibration = read_calibration(calibrate, loaded.preprocessing, names, class_embeddings)
    report("writing the image encoder as ONNX")
    encoder, quantization = in_precision(
        encoder_to_onnx(loaded, own_length=own_length), precision, calibration, limits, report
    )
    with new_bundle(out, force=force) as folder:
        write_model(encoder, folder / IMAGE_ENCODER)
        (folder / CLASS_EMBEDDINGS).write_bytes(encode_array(class_embeddings))
        for name, content in golden_contents(folder / IMAGE_ENCODER, loaded.preprocessing).items():
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
            parity=measure_parity(
                loaded, folder / IMAGE_ENCODER, compared, precision, limits.min_cosine, own_length=own_length
            ),
            versions=_versions() | (text_versions() if text else {}),
            files={path.name: _sha256(path) for path in sorted(folder.iterdir())},
            quantization=quantization,
            text=text,
            own_length=True if own_length else msgspec.UNSET,
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
