"""The one-time token of an invitation, and what both sides derive from it.

Its holder may knock at the broker and ask to join under one name: from the token come the private key of a
short-lived certificate for the broker, and the key that shows in a request that its sender held the
invitation. Each is HKDF-SHA256 (RFC 5869) of the token, without salt, with its own information text.
"""

import hashlib
import hmac
import secrets

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

TOKEN_BYTES = 32
INVITATION_BYTES = 8
# The order of P-256 (FIPS 186-5); more random bits than it has make the remainder even (there, A.2.1).
_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_SCALAR_BYTES = 48


def new_token() -> bytes:
    """Return 32 random bytes."""
    return secrets.token_bytes(TOKEN_BYTES)


def invitation_number(token: bytes) -> bytes:
    """Return the 8 bytes that name an invitation without giving its token away."""
    return hashlib.sha256(b"fedmedclip invitation\0" + token).digest()[:INVITATION_BYTES]


def enrolment_key(token: bytes) -> ec.EllipticCurvePrivateKey:
    """Return the P-256 key of the certificate with which the holder of a token may knock."""
    drawn = int.from_bytes(_derived(token, b"fedmedclip enrolment key", _SCALAR_BYTES), "big")
    return ec.derive_private_key(drawn % (_ORDER - 1) + 1, ec.SECP256R1())


def proof_of(token: bytes, content: bytes) -> bytes:
    """Return HMAC-SHA256 (RFC 2104) of `content`, 32 bytes, which only the holder of the token can make."""
    return hmac.digest(_derived(token, b"fedmedclip enrolment request", 32), content, "sha256")


def is_proof(token: bytes, content: bytes, proof: bytes) -> bool:
    """Whether `proof` was made of `content` with this token."""
    return hmac.compare_digest(proof_of(token, content), proof)


def _derived(token: bytes, information: bytes, size: int) -> bytes:
    return HKDF(algorithm=SHA256(), length=size, salt=None, info=information).derive(token)
