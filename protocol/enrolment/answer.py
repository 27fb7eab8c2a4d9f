"""The coordinator's answer to a request: an approval with the site's certificate, or a refusal.

4 bytes   b"FMA" 0x01
n bytes   the answer, a MessagePack array
64 bytes  Ed25519 signature of the coordinator over  b"fedmedclip answer" 0x00 and what stands before
"""

from typing import Annotated

import msgspec
from msgspec import Meta

from fedmedclip.protocol.enrolment.documents import decode_body, take_apart
from fedmedclip.protocol.errors import MessageError
from fedmedclip.protocol.messages import Digest, Reason
from fedmedclip.protocol.roster.chain import MAXIMUM_BYTES, Roster, open_roster
from fedmedclip.protocol.roster.entries import Name
from fedmedclip.protocol.signature import SIGNATURE_BYTES, SigningKey, is_signed_by

MARK = b"FMA\x01"
_DOMAIN = b"fedmedclip answer\0"
MOST_BYTES = MAXIMUM_BYTES + 8192


class Answer(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What becomes of a request.

    `request` is the SHA-256 of the request's bytes; `certificate` the site's TLS certificate in DER, empty
    where it is refused with a `reason`. `roster` is the roster's bytes, in which the site is a member when it
    is approved; empty where it is too large for a message, and is read from its topic later.
    """

    federation: Name
    site: Name
    request: Digest
    accepted: bool
    reason: Reason
    certificate: Annotated[bytes, Meta(max_length=4096)]
    roster: Annotated[bytes, Meta(max_length=MAXIMUM_BYTES)]


def encode_answer(answer: Answer, key: SigningKey) -> bytes:
    """Return the bytes of an answer, signed with the coordinator's key of today."""
    content = MARK + msgspec.msgpack.encode(answer)
    return content + key.sign(_DOMAIN + content)


def open_answer(
    encoded: bytes, coordinator_key: bytes, request_digest: bytes
) -> tuple[Answer, Roster | None]:
    """Return the answer to one's own request, and the roster that comes with it.

    `coordinator_key` is the one of the invitation: it signed the answer, or the key did to which, as the
    roster shows, it was rotated since. Raises MessageError for anything else.
    """
    body, signature = take_apart(encoded, MARK, SIGNATURE_BYTES, MOST_BYTES, "answer")
    answer = decode_body(body, Answer, "answer")
    if answer.request != request_digest:
        raise MessageError("it answers another request than this site's last; ask for the answer to that one")
    roster = open_roster(answer.roster) if answer.roster else None
    keys = (coordinator_key,) if roster is None else roster.coordinator_keys
    signed = is_signed_by(keys[-1], signature, _DOMAIN + encoded[:-SIGNATURE_BYTES])
    if coordinator_key not in keys or not signed:
        raise MessageError("an answer that the coordinator of the invitation has not signed; do not trust it")
    if roster is not None and roster.federation != answer.federation:
        raise MessageError("an answer with the roster of another federation")
    if answer.accepted and roster is not None and roster.members.active(answer.site) is None:
        raise MessageError(f"an approval, but {answer.site!r} is no member in the roster that came with it")
    return answer, roster
