"""`fedmedclip deploy`: a bundle and a site's heads become one ONNX file, checked before it is in place."""

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime

from fedmedclip.edge_client.features.encoder import Encoder
from fedmedclip.edge_client.heads.classification import answer
from fedmedclip.edge_client.heads.heads_file import Heads, load_trusted_heads
from fedmedclip.edge_client.inference.deployment.graph import (
    EMBEDDING,
    IMAGE,
    PROBABILITIES,
    WEIGHT,
    check_encoder,
    deployed_model,
)
from fedmedclip.protocol.bundle.bundle import Bundle, open_bundle
from fedmedclip.protocol.bundle.self_test import read_self_test
from fedmedclip.protocol.errors import BundleError, InvalidInputError
from fedmedclip.protocol.new_files import new_file
from fedmedclip.protocol.paths import is_stream, onnx_fault
from fedmedclip.protocol.trust.decision import Trust, trust_of_user

TOLERANCE = 1e-5
# A protocol buffer, and so an ONNX file that holds its own weights, ends at 2 GiB.
MAX_FILE_BYTES = 2**31 - 1
_CHECKED_IMAGES = 3


@dataclass(frozen=True)
class Deployed:
    """A written file: its size in bytes, and how far its outputs are from `fedmedclip predict`."""

    path: Path
    bytes: int
    largest_difference: float
    images: int
    outputs: list[str]


def deploy(
    bundle_folder: Path,
    heads_file: Path | None,
    out: Path,
    *,
    force: bool = False,
    trust: Trust | None = None,
) -> Deployed:
    """Write the model to `out`, whole and checked or not at all.

    Without heads, and with heads whose site found that better, it classifies zero-shot; without `trust`, that
    of this user holds (`trust_of_user`). Raises
    InvalidInputError when `out` exists (without `force`) or the model is above 2 GiB, BundleError and
    HeadError for files that cannot be used, and BundleError when the model does not give what `fedmedclip
    predict` gives.
    """
    if is_stream(out):
        raise InvalidInputError(
            f"{out} is no file: the model is checked before it is in place; give a new file"
        )
    if fault := onnx_fault(out):
        raise InvalidInputError(f"--out {out}: {fault}")
    if out.exists() and not force:
        raise InvalidInputError(f"{out} exists; replace it with --force or choose another --out")
    bundle = open_bundle(bundle_folder)
    trusted = trust_of_user() if trust is None else trust
    trusted.require_bundle(bundle)
    heads = None if heads_file is None else load_trusted_heads(heads_file, bundle, trusted)
    described = metadata(bundle, heads)
    if heads is not None and heads.zero_shot_answers:
        heads = None
    encoder = read_encoder(bundle)
    model = deployed_model(encoder, bundle, heads, described)
    del encoder
    if model.ByteSize() > MAX_FILE_BYTES:
        raise InvalidInputError(
            "encoder and heads together are above the 2 GiB of an ONNX file; export the bundle with "
            "--precision int8 or fp16"
        )
    onnx.checker.check_model(model)
    with new_file(out) as file:
        file.write(model.SerializeToString(deterministic=True))
        file.flush()
        outputs = [value.name for value in model.graph.output]
        del model
        images = _images(bundle)
        difference = largest_difference(Path(file.name), images, bundle, heads)
        if not difference <= TOLERANCE:
            raise BundleError(
                f"the model differs from `fedmedclip predict` by {difference:g}, allowed is {TOLERANCE:g}; "
                "nothing was written"
            )
    return Deployed(out, out.stat().st_size, difference, len(images), outputs)


def read_encoder(bundle: Bundle) -> onnx.ModelProto:
    """Read the bundle's image encoder, its weights included where they lie in a second file.

    Raises InvalidInputError, before anything is read, when they cannot be in one file; BundleError for an
    encoder that is none.
    """
    size = bundle.image_encoder_bytes
    if size > MAX_FILE_BYTES:
        raise InvalidInputError(
            f"the encoder has {size / 1e9:.2f} GB, and one ONNX file holds at most "
            f"{MAX_FILE_BYTES / 1e9:.2f} GB; export the bundle with --precision int8 or fp16, or use "
            "`fedmedclip predict`"
        )
    try:
        encoder = onnx.load_model(bundle.image_encoder)
    except Exception as error:  # of protobuf, which onnx does not name, and of the file system
        raise BundleError(
            f"{bundle.image_encoder} cannot be read: {error}; export the bundle again"
        ) from error
    check_encoder(encoder, bundle)
    return encoder


def metadata(bundle: Bundle, heads: Heads | None) -> dict[str, str]:
    """Return what the file says about itself: plain text, lists and objects as JSON."""
    manifest = bundle.manifest
    found: dict[str, Any] = {
        "class_names": manifest.class_names,
        "preprocessing": manifest.preprocessing,
        "model": manifest.model,
        "pretrained": manifest.pretrained,
        "precision": manifest.precision,
        "logit_scale": manifest.logit_scale,
        "bundle_sha256": bundle.digest.hex(),
        "software": f"fedmedclip-edge {version('fedmedclip-edge')}",
        "made_with": f"onnx {version('onnx')}",
    }
    if heads is not None:
        found |= {
            "method": heads.method,
            "federation": heads.federation,
            "site": heads.site,
            "head_version": heads.version,
            "ensemble": heads.ensemble,
            "private_head": heads.private is not None,
            "zero_shot_answers": heads.zero_shot_answers,
        }
    return {
        f"fedmedclip.{name}": value if isinstance(value, str) else msgspec.json.encode(value).decode()
        for name, value in found.items()
    }


def largest_difference(
    model: Path, images: npt.NDArray[np.uint8], bundle: Bundle, heads: Heads | None
) -> float:
    """Return the largest difference between the model's outputs and what `fedmedclip predict` computes.

    `images` uint8 (N, height, width, 3), given to the model as one batch. Embeddings longer than 1 are
    compared as fractions of the longest.
    """
    options = onnxruntime.SessionOptions()
    errors_only = 3
    options.log_severity_level = errors_only
    session: Any = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    names = [PROBABILITIES, WEIGHT, EMBEDDING]
    found = dict(zip(names, session.run(names, {IMAGE: images}), strict=True))
    del session
    with Encoder(bundle) as encoder:
        embeddings = encoder.encode(images)
    probabilities, weights = answer(heads, bundle, embeddings)
    longest = max(1.0, float(np.linalg.norm(embeddings, axis=1).max()))
    differences = {
        PROBABILITIES: found[PROBABILITIES] - probabilities,
        WEIGHT: found[WEIGHT] - weights,
        EMBEDDING: (found[EMBEDDING] - embeddings) / longest,
    }
    return max(float(np.abs(difference).max()) for difference in differences.values())


def _images(bundle: Bundle) -> npt.NDArray[np.uint8]:
    """Return images to compare on: the bundle's own, or, where it has none, noise."""
    test = read_self_test(bundle)
    if test is not None:
        return test.images
    preprocessing = bundle.manifest.preprocessing
    shape = (_CHECKED_IMAGES, preprocessing.height, preprocessing.width, 3)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
