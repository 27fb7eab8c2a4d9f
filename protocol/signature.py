"""Who signed a message: Ed25519 keys (RFC 8032), one per site and one per aggregator."""

import hashlib
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.new_files import write_new_file
from fedmedclip.protocol.paths import open_regular_file
from fedmedclip.protocol.private_files import refuse_readers

SIGNATURE_BYTES = 64
PUBLIC_KEY_BYTES = 32
# More than a key, so that a message can say how much more.
_KEY_FILE_LIMIT = 65536


class SigningKey:
    """A private Ed25519 key and its public half (32 raw bytes)."""

    def __init__(self, private_key: Ed25519PrivateKey) -> None:
        self._private_key = private_key
        self.public_key: bytes = private_key.public_key().public_bytes_raw()

    def sign(self, data: bytes) -> bytes:
        """Return the 64-byte signature of `data`."""
        return self._private_key.sign(data)

    def derive(self, information: bytes, size: int) -> bytes:
        """Return `size` bytes that only the holder of this key can compute, others for each `information`.

        HKDF with SHA-256 and without salt (RFC 5869); the private key is its input.
        """
        function = HKDF(algorithm=SHA256(), length=size, salt=None, info=information)
        return function.derive(self._private_key.private_bytes_raw())


def new_signing_key() -> SigningKey:
    """Return a key that nobody else has."""
    return SigningKey(Ed25519PrivateKey.generate())


def load_or_create_signing_key(path: Path) -> SigningKey:
    """Read the 32 raw private bytes at `path`, or make a key and keep it there for its owner's eyes only."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_new_file(path, Ed25519PrivateKey.generate().private_bytes_raw(), private=True)
    return load_signing_key(path)


def load_signing_key(path: Path) -> SigningKey:
    """Read the 32 raw private bytes at `path`.

    Raises InvalidInputError when they are not there, or other users can read them, too.
    """
    try:
        with open_regular_file(path) as file:
            raw = file.read(_KEY_FILE_LIMIT)
    except OSError as error:
        raise InvalidInputError(f"signing key {path} cannot be read ({error.strerror})") from error
    if len(raw) != 32:
        raise InvalidInputError(
            f"signing key {path} has {len(raw)} bytes, expected 32; restore it from a copy"
        )
    refuse_readers(path, "signing key")
    return SigningKey(Ed25519PrivateKey.from_private_bytes(raw))


def is_signed_by(public_key: bytes, signature: bytes, data: bytes) -> bool:
    """Whether `signature` is that of `data` under the raw public key."""
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, data)
    except (InvalidSignature, ValueError):
        return False
    return True


def fingerprint(public_key: bytes) -> bytes:
    """Return the first 8 bytes of the SHA-256 of a public key: enough to tell two sites apart."""
    return hashlib.sha256(public_key).digest()[:8]
