"""Noise that nobody outside the site can draw again, and that the site itself draws again after a kill.

A release's noise is a stream of ChaCha20 (RFC 8439) under a key of its own: HMAC-SHA256 of all that goes
into the release, under a secret that never leaves the site's state. So the same release has the same bytes,
however often a killed site makes it, and other data have other noise: no two releases differ by the data
alone.
"""

from __future__ import annotations

import hmac
import math
import secrets
from typing import Protocol

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20

Floats = npt.NDArray[np.float64]
Size = int | tuple[int, ...]

SECRET_BYTES = 32
# Of so many draws each number is made: see `SecretNoise`.
_DRAWS = 4


def new_secret() -> bytes:
    """Return a new secret from the operating system."""
    return secrets.token_bytes(SECRET_BYTES)


def release_key(secret: bytes, *parts: bytes) -> bytes:
    """Return the key of a release's noise, 32 bytes; `parts` are all that the release is made of."""
    digest = hmac.new(secret, digestmod="sha256")
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.digest()


class Noise(Protocol):
    """What draws noise: `SecretNoise` at a site; in an experiment numpy's Generator does."""

    def random(self, size: Size = 1) -> Floats: ...
    def standard_normal(self, size: Size = 1) -> Floats: ...
    def normal(self, loc: float = 0.0, scale: float = 1.0, size: Size = 1) -> Floats: ...


class SecretNoise:
    """Draws as numpy's Generator does, from the keystream of a 32-byte key.

    Each normal number is the sum of four, halved: the gaps between the floating-point numbers that one draw
    can give would otherwise tell what it was added to (Mironov 2012; Holohan and Braghin 2021).
    """

    def __init__(self, key: bytes) -> None:
        self._stream = Cipher(ChaCha20(key, bytes(16)), mode=None).encryptor()

    def random(self, size: Size = 1) -> Floats:
        """Return uniform numbers between 0 and 1, never 0 or 1 themselves."""
        count = math.prod(size) if isinstance(size, tuple) else size
        bits = np.frombuffer(self._stream.update(bytes(8 * count)), dtype="<u8") >> np.uint64(11)
        uniform: Floats = (bits.astype(np.float64) + 0.5) * 2.0**-53
        return uniform.reshape(size)

    def standard_normal(self, size: Size = 1) -> Floats:
        """Return normal numbers of mean 0 and standard deviation 1 (Box and Muller 1958)."""
        count = math.prod(size) if isinstance(size, tuple) else size
        radius = np.sqrt(-2.0 * np.log(self.random((_DRAWS // 2, count))))
        angle = 2.0 * np.pi * self.random((_DRAWS // 2, count))
        draws = (radius * np.cos(angle)).sum(axis=0) + (radius * np.sin(angle)).sum(axis=0)
        scaled: Floats = draws / math.sqrt(_DRAWS)
        return scaled.reshape(size)

    def normal(self, loc: float = 0.0, scale: float = 1.0, size: Size = 1) -> Floats:
        """Return normal numbers of this mean and standard deviation."""
        return loc + scale * self.standard_normal(size)
