"""Signed documents that travel by MQTT, e-mail or USB alike: a mark, a body in MessagePack, proofs.

4 bytes   what it is, and the version of its format
n bytes   body: one MessagePack value
m bytes   proofs, of a length that is fixed for each kind
"""

from typing import TypeVar

import msgspec

from fedmedclip.protocol.errors import MessageError
from fedmedclip.protocol.malformed import MALFORMED

Structure = TypeVar("Structure")


def take_apart(
    encoded: bytes, mark: bytes, proof_bytes: int, most_bytes: int, what: str
) -> tuple[bytes, bytes]:
    """Return body and proofs of a document. Raises MessageError, which calls it `what`."""
    if len(encoded) > most_bytes:
        raise MessageError(f"{what} of {len(encoded)} bytes; at most {most_bytes} are read")
    if encoded[:3] == mark[:3] and encoded[:4] != mark:
        raise MessageError(f"{what} is of another version of the format; update the older side")
    if encoded[:4] != mark or len(encoded) < len(mark) + 1 + proof_bytes:
        raise MessageError(f"these bytes are no {what}")
    return encoded[len(mark) : -proof_bytes], encoded[-proof_bytes:]


def decode_body(body: bytes, structure: type[Structure], what: str) -> Structure:
    """Return the body of a document as its bounded structure. Raises MessageError, which calls it `what`."""
    try:
        return msgspec.msgpack.decode(body, type=structure)
    except MALFORMED as error:
        raise MessageError(f"malformed {what}: {error}") from error
