"""Answers as they lie in the folder, which wrote and signed them itself."""

from fedmedclip.protocol.enrolment.answer import MARK, MOST_BYTES, Answer
from fedmedclip.protocol.enrolment.documents import decode_body, take_apart
from fedmedclip.protocol.signature import SIGNATURE_BYTES


def answer_in(encoded: bytes) -> Answer:
    """Return what an answer of our own says. Raises MessageError for other bytes."""
    body, _ = take_apart(encoded, MARK, SIGNATURE_BYTES, MOST_BYTES, "answer")
    return decode_body(body, Answer, "answer")


def is_of_request(encoded: bytes, digest: bytes) -> bool:
    """Whether an answer of our own is that to the request with this SHA-256."""
    return answer_in(encoded).request == digest
