"""A bundle's self-test: images and the embeddings that they gave at export, to be found again on every box.

Two files of the bundle, hashed by its manifest like the others: `self_test_images.npy`, uint8 (N, height,
width, 3), ready for the encoder; `self_test_embeddings.npy`, float32 (N, D), what ONNX Runtime gave, image by
image.

How far a box may be from them depends on the precision:

- fp32 and fp16 (stored in 16 bits, computed in 32): kernels differ by the order of their sums, some 1e-7 in a
  value of a unit vector; 1e-3 is far above that and far below what a wrong layer or a broken kernel does.
- 8-bit weights: rounding turns differences of 1e-7 into steps of a quantised activation, which is noise of
  some 1e-4 in the cosine. But x86 processors with AVX2 and without VNNI add pairs of products in 16 bits, and
  full 8-bit weights overflow there, unnoticed: a cosine of 0.98 was seen (docs/how-to/bundles.md). 0.995
  parts them.
"""

import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedmedclip.protocol.bundle.arrays import read_array
from fedmedclip.protocol.bundle.bundle import Bundle
from fedmedclip.protocol.errors import BundleError

SELF_TEST_IMAGES = "self_test_images.npy"
SELF_TEST_EMBEDDINGS = "self_test_embeddings.npy"
# Enough to meet different activations, few enough to run at every first start.
IMAGES = 3
MAX_IMAGES = 16

FP32_MAX_ABS_ERROR = 1e-3
QUANTIZED_COSINE_MIN = 0.995


@dataclass(frozen=True)
class SelfTest:
    """Images uint8 (N, height, width, 3) and their embeddings at export, float32 (N, D)."""

    images: npt.NDArray[np.uint8]
    embeddings: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Agreement:
    """How the embeddings of this box compare with those at export, over all self-test images."""

    max_abs_error: float
    cosine_min: float
    passed: bool

    def words(self) -> str:
        """Return the figures for a person."""
        return f"largest difference {self.max_abs_error:.2g}, least cosine {self.cosine_min:.6f}"


def read_self_test(bundle: Bundle) -> SelfTest | None:
    """Return the self-test of an opened bundle, None for a bundle from before there was one.

    Raises BundleError when its files are not what the manifest promises.
    """
    files = bundle.manifest.files
    if SELF_TEST_IMAGES not in files and SELF_TEST_EMBEDDINGS not in files:
        return None
    preprocessing = bundle.manifest.preprocessing
    pixels, counts = (preprocessing.height, preprocessing.width, 3), (1, MAX_IMAGES)
    images = read_array(bundle.folder / SELF_TEST_IMAGES, np.uint8, counts, pixels)
    size = bundle.manifest.embedding_size
    embeddings = read_array(bundle.folder / SELF_TEST_EMBEDDINGS, np.float32, counts, (size,))
    if len(images) != len(embeddings) or not np.isfinite(embeddings).all():
        raise BundleError(
            f"{bundle.folder} has a self-test of {len(images)} images and {len(embeddings)} embeddings, "
            "or values that are not finite; export the bundle again"
        )
    return SelfTest(images, embeddings)


def compare(expected: npt.NDArray[np.float32], found: npt.NDArray[np.float32], precision: str) -> Agreement:
    """Compare embeddings of this box, float32 (N, D), with those at export; a NaN never passes.

    Differences are fractions of the length at export, which is 1 in most bundles.
    """
    at_export = np.linalg.norm(expected, axis=1)
    difference = float((np.abs(expected - found).max(axis=1) / at_export).max())
    lengths = at_export * np.linalg.norm(found, axis=1)
    cosine = float((np.sum(expected * found, axis=1) / lengths).min())
    exact = precision != "int8"
    return Agreement(
        difference, cosine, difference <= FP32_MAX_ABS_ERROR if exact else cosine >= QUANTIZED_COSINE_MIN
    )


def demanded(precision: str) -> str:
    """Say for a person what `compare` asks of a precision."""
    if precision != "int8":
        return f"a difference of at most {FP32_MAX_ABS_ERROR:g}"
    return f"a cosine of at least {QUANTIZED_COSINE_MIN:g}"


def encode_array(array: npt.NDArray[np.generic]) -> bytes:
    """Return the array as the bytes of an .npy file."""
    encoded = io.BytesIO()
    np.save(encoded, array, allow_pickle=False)
    return encoded.getvalue()
