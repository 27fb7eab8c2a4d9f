"""A site's request to become a member: its two public keys, and the proof that it holds the invitation.

    4 bytes   b"FMQ" 0x01
    n bytes   the request, a MessagePack array
    32 bytes  HMAC-SHA256 over what stands before, with a key that comes from the invitation's token
    64 bytes  Ed25519 signature over  b"fedmedclip request" 0x00 and what stands before, with the key in it

The private keys stay where they were made.
"""

import hashlib
from dataclasses import dataclass
from typing import Annotated

import msgspec
from msgspec import Meta

from fedmedclip.protocol.enrolment.documents import decode_body, take_apart
from fedmedclip.protocol.enrolment.token import INVITATION_BYTES, invitation_number, is_proof, proof_of
from fedmedclip.protocol.errors import MessageError
from fedmedclip.protocol.messages import PublicKey, Samples, ShortText
from fedmedclip.protocol.roster.entries import Name, Seconds
from fedmedclip.protocol.signature import SIGNATURE_BYTES, SigningKey, is_signed_by

MARK = b"FMQ\x01"
MOST_BYTES = 4096
_DOMAIN = b"fedmedclip request\0"
_PROOF_BYTES = 32


class Request(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What a site asks for.

    `public_key` is the Ed25519 key that will sign its messages; `certificate_request` a PKCS #10 request
    (RFC 2986) in DER, signed by the P-256 key of its future TLS certificate; `samples` the number of images
    that it has to train on; `at` its clock, in seconds since 1970.
    """

    federation: Name
    site: Name
    invitation: Annotated[bytes, Meta(min_length=INVITATION_BYTES, max_length=INVITATION_BYTES)]
    public_key: PublicKey
    certificate_request: Annotated[bytes, Meta(min_length=1, max_length=2048)]
    samples: Samples
    software: ShortText
    at: Seconds


@dataclass(frozen=True)
class ReceivedRequest:
    """A request whose own signature holds, as it came; whether it holds the invitation is still open."""

    request: Request
    encoded: bytes

    @property
    def number(self) -> str:
        """What names the invitation, in 16 hexadecimal digits."""
        return self.request.invitation.hex()

    @property
    def digest(self) -> bytes:
        """SHA-256 of the whole, which the answer names."""
        return hashlib.sha256(self.encoded).digest()

    def holds(self, token: bytes) -> bool:
        """Whether its sender held the invitation with this token."""
        content = self.encoded[: -_PROOF_BYTES - SIGNATURE_BYTES]
        proof = self.encoded[-_PROOF_BYTES - SIGNATURE_BYTES : -SIGNATURE_BYTES]
        return invitation_number(token) == self.request.invitation and is_proof(token, content, proof)


def encode_request(request: Request, token: bytes, key: SigningKey) -> bytes:
    """Return the bytes of a request, proven with the invitation's token and signed with the site's key."""
    content = MARK + msgspec.msgpack.encode(request)
    proven = content + proof_of(token, content)
    return proven + key.sign(_DOMAIN + proven)


def open_request(encoded: bytes) -> ReceivedRequest:
    """Return the request in `encoded`, signed by the key in it. Raises MessageError."""
    body, proofs = take_apart(encoded, MARK, _PROOF_BYTES + SIGNATURE_BYTES, MOST_BYTES, "request")
    request = decode_body(body, Request, "request")
    if not is_signed_by(request.public_key, proofs[-SIGNATURE_BYTES:], _DOMAIN + encoded[:-SIGNATURE_BYTES]):
        raise MessageError("a request is not signed by the key in it; it was altered on its way")
    return ReceivedRequest(request, encoded)
