"""The bundle: the folder that `export` writes and that every site reads.

It holds the frozen image encoder as ONNX, the class prompt embeddings, and `manifest.json`, which names
the SHA-256 of every other file. The SHA-256 of the manifest itself therefore names the whole bundle.
"""

import hashlib
import mmap
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from fedmedclip.protocol.bundle.arrays import read_array
from fedmedclip.protocol.bundle.text_cleaning import Cleaning
from fedmedclip.protocol.errors import BundleError
from fedmedclip.protocol.malformed import MALFORMED
from fedmedclip.protocol.paths import open_regular_file, read_at_most

MANIFEST = "manifest.json"
IMAGE_ENCODER = "image_encoder.onnx"
# Where the weights of a large encoder are.
IMAGE_ENCODER_WEIGHTS = f"{IMAGE_ENCODER}.data"
CLASS_EMBEDDINGS = "class_embeddings.npy"
REFERENCE_FILE = "reference.fmr"
TEXT_ENCODER = "text_encoder.onnx"
TOKENIZER = "tokenizer.json"
ENCODER_FILES = frozenset({IMAGE_ENCODER, IMAGE_ENCODER_WEIGHTS})
TEXT_FILES = frozenset({TEXT_ENCODER, TOKENIZER})
FORMAT = 1
LARGEST_MANIFEST = 64 * 1024 * 1024
# Large, for between two pieces a thread may have to wait while another one imports something.
HASHED_AT_ONCE = 8 * 1024 * 1024

Precision = Literal["fp32", "fp16", "int8"]
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
    export demanded: of fp32 the largest allowed `embedding_max_abs_error`, of the other precisions the least
    allowed `cosine_min`.
    """

    images: int
    pixel_max_difference: int
    embedding_max_abs_error: float
    cosine_min: float
    cosine_mean: float
    tolerance: float


class Agreement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How an encoder of lower precision agrees with the float32 encoder on calibration images.

    `zero_shot` is the share of images whose nearest class prompt is the same. With labelled images, `probe`
    is the share that a linear probe, trained on float32 embeddings of other images, gives the same class;
    its accuracy on the float32 embeddings is `probe_accuracy_fp32`, on this encoder's `probe_accuracy`.
    """

    images: int
    cosine_min: float
    cosine_mean: float
    zero_shot: float
    probe: float | None = None
    probe_accuracy_fp32: float | None = None
    probe_accuracy: float | None = None


class Candidate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A form of the encoder that calibration tried: `in_float` names the products that stayed in float."""

    scheme: str
    in_float: list[str]
    agreement: Agreement


class Quantization(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What of an int8 encoder is 8-bit: how many ONNX operators with weights, by operator name.

    With calibration images, `agreement` is measured on them, and `tried` holds every form that was compared.
    """

    scheme: str
    quantized: dict[str, int]
    kept_in_float: dict[str, int]
    agreement: Agreement | None = None
    tried: list[Candidate] = []


class ClassPrompts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Templates with {} and, for each class folder name, the phrases that replace it."""

    templates: list[str]
    classes: dict[str, list[str]]


class TextParity(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How far the exported text tower is from open_clip on the same texts, measured at export.

    `embedding_max_abs_error` compares unit embeddings; `tolerance` is the largest that the export allowed.
    All texts had equal tokens.
    """

    texts: int
    embedding_max_abs_error: float
    tolerance: float


class TextTower(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The text side of a bundle that was exported with it, always float32.

    `tokenizer` says what kind of file `tokenizer.json` is: `bundle.byte_pairs.BytePairs`, or what the
    library `tokenizers` reads. `context_length` is in tokens; `cleaning` comes before the tokenizer; a
    `blanked_token` becomes 0 after it.
    """

    tokenizer: Literal["byte pairs", "hugging face"]
    context_length: PositiveInt
    cleaning: Cleaning
    parity: TextParity
    blanked_token: int | None = None


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `manifest.json` holds.

    `own_length` true: the encoder leaves embeddings at the length that the model gives them. Where it is not
    there they are of unit length.
    """

    format: int
    model: str
    pretrained: str
    precision: Precision
    embedding_size: PositiveInt
    logit_scale: float
    class_names: list[str]
    prompts: ClassPrompts
    preprocessing: Preprocessing
    parity: Parity
    versions: dict[str, str]
    files: dict[str, str]
    quantization: Quantization | None = None
    text: TextTower | None = None
    own_length: bool | msgspec.UnsetType = msgspec.UNSET


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

    @property
    def image_encoder_bytes(self) -> int:
        """Size of the image encoder, with the weights that lie beside it."""
        names = self.manifest.files.keys() & ENCODER_FILES
        return sum((self.folder / name).stat().st_size for name in names)

    @property
    def text_encoder(self) -> Path:
        """Path of the ONNX file of the text tower, which a bundle need not have."""
        return self.folder / TEXT_ENCODER


def open_bundle(folder: Path, *, with_text: bool = True, with_encoder: bool = True) -> Bundle:
    """Read a bundle and verify the hash of each file.

    Without `with_text`, the files of the text tower are left alone: hashing hundreds of megabytes takes
    longer than classifying an image. Without `with_encoder`, those of the image encoder are left for
    `verify_encoder`.

    Raises BundleError when a file is missing, unreadable, of an unknown format, or not the file that the
    manifest names.
    """
    manifest_path = folder / MANIFEST
    try:
        with open_regular_file(manifest_path) as file:
            manifest_bytes = read_at_most(file, LARGEST_MANIFEST + 1)
    except OSError as error:
        raise BundleError(
            f"no bundle at {folder}: cannot read {MANIFEST} ({error.strerror}); "
            "make one with `fedmedclip export`"
        ) from error
    if len(manifest_bytes) > LARGEST_MANIFEST:
        raise BundleError(f"{manifest_path} has more than {LARGEST_MANIFEST:,} bytes; it is not a bundle's")
    manifest = decode_manifest(manifest_bytes, manifest_path)
    left_out = (set() if with_text else TEXT_FILES) | (set() if with_encoder else ENCODER_FILES)
    for name, expected in manifest.files.items():
        if name not in left_out:
            verify_file(folder / name, expected)
    shape = (len(manifest.class_names), manifest.embedding_size)
    class_embeddings = read_class_embeddings(folder / CLASS_EMBEDDINGS, shape)
    return Bundle(folder, manifest, class_embeddings, hashlib.sha256(manifest_bytes).digest())


def verify_encoder(bundle: Bundle) -> None:
    """Verify the hash of each file of the image encoder; raises BundleError as `open_bundle` does."""
    for name, expected in bundle.manifest.files.items():
        if name in ENCODER_FILES:
            verify_file(bundle.folder / name, expected)


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
    except MALFORMED as error:
        raise BundleError(f"{path} is damaged: {error}; copy or export the bundle again") from error
    required = {IMAGE_ENCODER, CLASS_EMBEDDINGS} | (TEXT_FILES if manifest.text else set())
    if missing := required - manifest.files.keys():
        raise BundleError(f"{path} does not name {sorted(missing)}; export the bundle again")
    if unsafe := [name for name in manifest.files if not is_plain_file_name(name)]:
        raise BundleError(f"{path} names files outside the bundle: {unsafe}; export the bundle again")
    names = manifest.class_names
    if len(set(names)) != len(names) or names != list(manifest.prompts.classes):
        raise BundleError(
            f"{path} has the classes {names}, but prompts for {list(manifest.prompts.classes)}; "
            "export the bundle again"
        )
    return manifest


def is_plain_file_name(name: str) -> bool:
    """Whether a name from a manifest stays in the bundle's own folder, on any operating system."""
    return name not in ("", ".", "..") and not set(name) & set("/\\:\0")


def read_class_embeddings(path: Path, shape: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Read float32 unit rows of the given shape; raise BundleError when the file holds anything else."""
    count, size = shape
    found = read_array(path, np.float32, (count, count), (size,))
    lengths = np.linalg.norm(found, axis=1)
    if not np.allclose(lengths, 1.0, rtol=0, atol=1e-3):
        raise BundleError(f"{path} has rows that are not of unit length; export the bundle again")
    return found


def verify_file(path: Path, expected_sha256: str) -> None:
    """Raise BundleError unless the file's SHA-256 (hexadecimal) is the expected one."""
    try:
        # Not from the heap, whose allocator would learn to keep pieces of this size when they are freed.
        with open_regular_file(path) as file, mmap.mmap(-1, HASHED_AT_ONCE) as buffer:
            hashed = hashlib.sha256()
            with memoryview(buffer) as view:
                while count := file.raw.readinto(view):
                    hashed.update(view[:count])
            found = hashed.hexdigest()
    except OSError as error:
        raise BundleError(f"bundle file {path} cannot be read ({error.strerror})") from error
    if found != expected_sha256:
        raise BundleError(
            f"bundle file {path} has SHA-256 {found}, the manifest says {expected_sha256}; "
            "copy or export the bundle again"
        )
