"""The bundle: the folder that `export` writes and that every site reads.

It holds the frozen image encoder as ONNX, the class prompt embeddings, and `manifest.json`, which names
the SHA-256 of every other file. The SHA-256 of the manifest itself therefore names the whole bundle.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from protocol.errors import BundleError

MANIFEST = "manifest.json"
IMAGE_ENCODER = "image_encoder.onnx"
CLASS_EMBEDDINGS = "class_embeddings.npy"
FORMAT = 1

PositiveInt = Annotated[int, msgspec.Meta(gt=0, le=1 << 20)]


class Preprocessing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How an image becomes the encoder's uint8 input. Sizes in pixels."""

    height: PositiveInt
    width: PositiveInt
    resize_mode: Literal["shortest", "longest", "squash"]
    interpolation: Literal["bicubic", "bilinear"]
    fill_color: int
    mean: tuple[float, float, float]
    standard_deviation: tuple[float, float, float]


class Parity(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How far the exported encoder is from open_clip on the same images, measured at export.

    `pixel_max_difference` is in 8-bit levels; the others compare unit embeddings. `tolerance` is what the
    export demanded: of fp32 the largest allowed `embedding_max_abs_error`, of int8 the least allowed
    `cosine_min`.
    """

    images: int
    pixel_max_difference: int
    embedding_max_abs_error: float
    cosine_min: float
    cosine_mean: float
    tolerance: float


class Quantization(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What of an int8 encoder is 8-bit: how many ONNX operators with weights, by operator name."""

    scheme: str
    quantized: dict[str, int]
    kept_in_float: dict[str, int]


class ClassPrompts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Templates with {} and, for each class folder name, the phrases that replace it."""

    templates: list[str]
    classes: dict[str, list[str]]


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `manifest.json` holds."""

    format: int
    model: str
    pretrained: str
    precision: Literal["fp32", "int8"]
    embedding_size: PositiveInt
    logit_scale: float
    class_names: list[str]
    prompts: ClassPrompts
    preprocessing: Preprocessing
    parity: Parity
    versions: dict[str, str]
    files: dict[str, str]
    quantization: Quantization | None = None


@dataclass(frozen=True)
class Bundle:
    """An opened bundle. `class_embeddings` is float32 (classes, D), each row of unit length."""

    folder: Path
    manifest: Manifest
    class_embeddings: npt.NDArray[np.float32]
    digest: bytes

    @property
    def image_encoder(self) -> Path:
        """Path of the ONNX file of the image encoder."""
        return self.folder / IMAGE_ENCODER


def open_bundle(folder: Path) -> Bundle:
    """Read a bundle and verify the hash of each file.

    Raises BundleError when a file is missing, unreadable, of an unknown format, or not the file that the
    manifest names.
    """
    manifest_path = folder / MANIFEST
    try:
        manifest_bytes = manifest_path.read_bytes()
    except OSError as error:
        raise BundleError(
            f"no bundle at {folder}: cannot read {MANIFEST} ({error.strerror}); "
            "make one with `fedmedclip export`"
        ) from error
    manifest = decode_manifest(manifest_bytes, manifest_path)
    for name, expected in manifest.files.items():
        verify_file(folder / name, expected)
    class_embeddings = np.load(folder / CLASS_EMBEDDINGS, allow_pickle=False)
    expected_shape = (len(manifest.class_names), manifest.embedding_size)
    if class_embeddings.shape != expected_shape or class_embeddings.dtype != np.float32:
        raise BundleError(
            f"{folder / CLASS_EMBEDDINGS} is {class_embeddings.dtype} {class_embeddings.shape}, "
            f"expected float32 {expected_shape}; export the bundle again"
        )
    return Bundle(folder, manifest, class_embeddings, hashlib.sha256(manifest_bytes).digest())


def decode_manifest(encoded: bytes, path: Path) -> Manifest:
    """Decode `manifest.json`; `path` is named in the BundleError that damaged content raises."""
    try:
        found_format = msgspec.json.decode(encoded, type=dict[str, object]).get("format")
        if found_format != FORMAT:
            raise BundleError(
                f"{path}: format {found_format!r} is not known (this version reads {FORMAT}); "
                "update fedmedclip or export the bundle again"
            )
        manifest = msgspec.json.decode(encoded, type=Manifest)
    except msgspec.MsgspecError as error:
        raise BundleError(f"{path} is damaged: {error}; copy or export the bundle again") from error
    required = {IMAGE_ENCODER, CLASS_EMBEDDINGS}
    if missing := required - manifest.files.keys():
        raise BundleError(f"{path} does not name {sorted(missing)}; export the bundle again")
    if unsafe := [name for name in manifest.files if Path(name).name != name]:
        raise BundleError(f"{path} names files outside the bundle: {unsafe}")
    return manifest


def verify_file(path: Path, expected_sha256: str) -> None:
    """Raise BundleError unless the file's SHA-256 (hexadecimal) is the expected one."""
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BundleError(f"bundle file {path} cannot be read ({error.strerror})") from error
    if found != expected_sha256:
        raise BundleError(
            f"bundle file {path} has SHA-256 {found}, the manifest says {expected_sha256}; "
            "copy or export the bundle again"
        )
