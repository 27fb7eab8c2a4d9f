"""What an image looks like, in a kilobyte: a hash of its pixels, and a grey thumbnail.

Both are of the decoded image, so that a copy is known again whatever the file's format and its metadata.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from PIL.Image import Image

THUMBNAIL_SIDE = 32
APPEARANCE_VERSION = 1
"""Raised when the same pixels would give another hash or thumbnail."""

_HASH_BYTES = 16
_THUMBNAIL_BYTES = THUMBNAIL_SIDE * THUMBNAIL_SIDE


@dataclass(frozen=True)
class Appearance:
    """`pixel_hash` is BLAKE2b of width, height and RGB values, 16 bytes; `thumbnail` uint8 (32, 32), grey."""

    pixel_hash: bytes
    thumbnail: npt.NDArray[np.uint8]

    def to_bytes(self) -> bytes:
        """Return hash and thumbnail, 1040 bytes."""
        return self.pixel_hash + self.thumbnail.tobytes()

    @classmethod
    def from_bytes(cls, content: bytes) -> Self | None:
        """Return what `to_bytes` gave; None for anything else."""
        if len(content) != _HASH_BYTES + _THUMBNAIL_BYTES:
            return None
        thumbnail = np.frombuffer(content, np.uint8, offset=_HASH_BYTES)
        return cls(content[:_HASH_BYTES], thumbnail.reshape(THUMBNAIL_SIDE, THUMBNAIL_SIDE))


@dataclass(frozen=True)
class Appearances:
    """Those of N images: `pixel_hashes`, and `thumbnails` uint8 (N, 32, 32)."""

    pixel_hashes: tuple[bytes, ...]
    thumbnails: npt.NDArray[np.uint8]

    @classmethod
    def of(cls, images: Sequence[Appearance]) -> Self:
        """Stack them."""
        thumbnails = np.empty((len(images), THUMBNAIL_SIDE, THUMBNAIL_SIDE), np.uint8)
        for row, image in enumerate(images):
            thumbnails[row] = image.thumbnail
        return cls(tuple(image.pixel_hash for image in images), thumbnails)

    def __len__(self) -> int:
        return len(self.pixel_hashes)


def appearance_of(image: "Image") -> Appearance:
    """Return the appearance of an RGB image of any size; the thumbnail is the average of each area of it."""
    digest = hashlib.blake2b(repr(image.size).encode(), digest_size=_HASH_BYTES)
    digest.update(image.tobytes())
    # Pillow's number for its box filter, so that this module works on an image without importing Pillow.
    box_filter = 4
    small = image.convert("L").resize((THUMBNAIL_SIDE, THUMBNAIL_SIDE), box_filter)
    return Appearance(digest.digest(), np.array(small))
