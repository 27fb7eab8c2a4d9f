"""Key pairs that two sites agree by, and the masks that come of it: what one site adds, the other subtracts.

X25519 (RFC 7748), HKDF with SHA-256 (RFC 5869), and the keystream of ChaCha20 (RFC 8439).
"""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fedmedclip.protocol.errors import MessageError

Words = npt.NDArray[np.uint32]
"""Integers modulo 2**b, b at most 32."""

_LABEL = b"fedmedclip secure aggregation 1: "


def derived(secret: bytes, purpose: str, context: bytes = b"") -> bytes:
    """Return 32 bytes for one purpose: HKDF without salt; info = label, purpose, 0x00, context."""
    info = _LABEL + purpose.encode() + b"\0" + context
    return HKDF(SHA256(), 32, salt=None, info=info).derive(secret)


def private_key(seed: bytes, purpose: str) -> X25519PrivateKey:
    """Return the private key that a seed of 16 bytes stands for."""
    return X25519PrivateKey.from_private_bytes(derived(seed, purpose))


def public_half(key: X25519PrivateKey) -> bytes:
    """Return the 32 bytes that others may know."""
    return key.public_key().public_bytes_raw()


def agreed(own: X25519PrivateKey, other: bytes) -> bytes:
    """Return the 32 bytes that both holders of two key pairs come to.

    Raises MessageError where `other` is no key that can be agreed with.
    """
    try:
        return own.exchange(X25519PublicKey.from_public_bytes(other))
    except ValueError as error:
        raise MessageError(f"{other.hex()[:16]} is no public key of X25519: {error}") from error


def keystream(seed: bytes, purpose: str, context: bytes, length: int, bits: int) -> Words:
    """Return `length` integers in [0, 2**bits) that a seed stands for: the low bits of little-endian words.

    `context` tells one try of one round from all others.
    """
    cipher = Cipher(ChaCha20(derived(seed, purpose, context), bytes(16)), mode=None).encryptor()
    words = np.frombuffer(cipher.update(bytes(4 * length)), dtype="<u4").astype(np.uint32)
    return words & np.uint32((1 << bits) - 1)


def self_mask(seed: bytes, context: bytes, length: int, bits: int) -> Words:
    """Return the mask that a site takes off with the help of its peers only."""
    return keystream(seed, "self mask", context, length, bits)


def pair_mask(own: X25519PrivateKey, other: bytes, context: bytes, length: int, bits: int) -> Words:
    """Return the mask that two sites share: the first of them in the list adds it, the other subtracts it."""
    return keystream(agreed(own, other), "pair mask", context, length, bits)


def pair_masks(
    index: int,
    own: X25519PrivateKey,
    others: Iterable[tuple[int, bytes]],
    context: bytes,
    length: int,
    bits: int,
) -> Words:
    """Return the sum of a site's masks with others, given as (index, public key), modulo 2**bits."""
    total = np.zeros(length, np.uint32)
    for other, public in others:
        mask = pair_mask(own, public, context, length, bits)
        total = total + mask if index < other else total - mask
    return total & np.uint32((1 << bits) - 1)
