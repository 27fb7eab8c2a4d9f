"""Invitation, request and answer: each says in one way what is wrong with it."""

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import given

from fedmedclip.protocol.enrolment.answer import Answer, encode_answer, open_answer
from fedmedclip.protocol.enrolment.invitation import (
    Invitation,
    invitation_text,
    read_invitation,
    require_open,
    sign_invitation,
)
from fedmedclip.protocol.enrolment.request import Request, encode_request, open_request
from fedmedclip.protocol.enrolment.token import enrolment_key, invitation_number, new_token
from fedmedclip.protocol.errors import InvalidInputError, MessageError
from fedmedclip.protocol.roster.chain import found
from fedmedclip.protocol.roster.entries import Admitted, KeyRotated
from fedmedclip.protocol.signature import new_signing_key

COORDINATOR, SITE, STRANGER = new_signing_key(), new_signing_key(), new_signing_key()
TOKEN = new_token()
PEM = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"


def invitation(expires: int = 2000) -> Invitation:
    unsigned = Invitation(
        1, "brain-mri", "hospital-a", "broker.example.org", 8883, COORDINATOR.public_key.hex(),
        "ab" * 32, "cd" * 32, 1000, expires, TOKEN.hex(), PEM, PEM,
    )  # fmt: skip
    return sign_invitation(unsigned, COORDINATOR)


def request(**changes: object) -> Request:
    asked = Request(
        "brain-mri", "hospital-a", invitation_number(TOKEN), SITE.public_key, b"csr", 400, "0.2", 1500
    )
    return msgspec.structs.replace(asked, **changes)


def test_an_invitation_is_read_as_it_was_made() -> None:
    made = invitation()
    text = invitation_text(made)

    assert read_invitation(text, "invitation a.toml") == made
    assert len(text.encode()) < 4096
    assert made.number in text


def test_an_invitation_that_an_editor_saved_with_other_line_ends_is_read() -> None:
    text = invitation_text(invitation()).replace("\n", "\r\n")
    assert read_invitation(text, "invitation") == invitation()


def test_an_invitation_that_expired_says_both_times() -> None:
    with pytest.raises(InvalidInputError, match=r"expired at 1970-01-01 00:33 .* it is 1970-01-01 00:50"):
        require_open(read_invitation(invitation_text(invitation()), "invitation"), "invitation", 3000)


@pytest.mark.parametrize("moment", [-(1 << 62), -1, 1 << 40])
def test_an_invitation_of_a_moment_that_no_calendar_has_is_refused(moment: int) -> None:
    made = sign_invitation(msgspec.structs.replace(invitation(), expires=moment), COORDINATOR)
    text = invitation_text(invitation()).replace("expires = 2000", f"expires = {moment}")
    text = text.replace(invitation().signature, made.signature)
    with pytest.raises(InvalidInputError, match=r"expires is .* give a whole number from 0 to"):
        read_invitation(text, "invitation")


def test_an_altered_invitation_is_refused() -> None:
    text = invitation_text(invitation()).replace("broker.example.org", "broker.example.com")
    with pytest.raises(InvalidInputError, match="was altered"):
        read_invitation(text, "invitation")


def test_an_invitation_of_a_later_format_says_so() -> None:
    text = invitation_text(invitation()).replace("format = 1", "format = 2")
    with pytest.raises(InvalidInputError, match="format 2"):
        read_invitation(text, "invitation")


def test_the_enrolment_key_is_the_same_on_both_sides_and_another_for_each_token() -> None:
    numbers = {enrolment_key(token).private_numbers() for token in (TOKEN, TOKEN, new_token())}
    assert len(numbers) == 2


@pytest.mark.parametrize("name", ["hospital-a\n", "Hospital", "", "-a", "a" * 33])
def test_a_request_in_a_name_that_cannot_stand_in_a_topic_is_refused(name: str) -> None:
    with pytest.raises(MessageError, match="malformed request"):
        open_request(encode_request(request(site=name), TOKEN, SITE))


def test_a_request_shows_who_holds_the_invitation() -> None:
    received = open_request(encode_request(request(), TOKEN, SITE))

    assert received.request == request()
    assert received.holds(TOKEN)
    assert not received.holds(new_token())
    pretended = open_request(encode_request(request(), new_token(), SITE))
    assert not pretended.holds(TOKEN)


def test_a_request_is_signed_by_the_key_in_it() -> None:
    with pytest.raises(MessageError, match="not signed by the key in it"):
        open_request(encode_request(request(), TOKEN, STRANGER))


@given(st.integers(0), st.integers(1, 255))
def test_no_altered_request_is_taken(place: int, change: int) -> None:
    encoded = bytearray(encode_request(request(), TOKEN, SITE))
    encoded[place % len(encoded)] ^= change
    with pytest.raises(MessageError):
        open_request(bytes(encoded))


FOUNDED = found("brain-mri", bytes(32), COORDINATOR, 1000)
MEMBERS = FOUNDED.with_entry(
    Admitted("hospital-a", SITE.public_key, bytes(32), 5000, 400, "Ada"), COORDINATOR, 1001
)


def answer(**changes: object) -> Answer:
    given_ = Answer("brain-mri", "hospital-a", b"\5" * 32, True, "", b"certificate", MEMBERS.encoded)
    return msgspec.structs.replace(given_, **changes)


def test_an_answer_brings_the_roster() -> None:
    opened, roster = open_answer(encode_answer(answer(), COORDINATOR), COORDINATOR.public_key, b"\5" * 32)
    assert opened == answer()
    assert roster is not None
    assert roster.members.active("hospital-a") is not None


def test_the_coordinator_may_have_a_new_key_since_the_invitation() -> None:
    rotated = MEMBERS.with_entry(KeyRotated(STRANGER.public_key), COORDINATOR, 1002, new_key=STRANGER)
    encoded = encode_answer(answer(roster=rotated.encoded), STRANGER)
    _, roster = open_answer(encoded, COORDINATOR.public_key, b"\5" * 32)
    assert roster is not None
    assert roster.coordinator_key == STRANGER.public_key


@pytest.mark.parametrize(
    ("encoded", "said"),
    [
        (encode_answer(answer(), STRANGER), "has not signed"),
        (encode_answer(answer(roster=b""), STRANGER), "has not signed"),
        (
            encode_answer(answer(roster=found("brain-mri", bytes(32), STRANGER, 1).encoded), STRANGER),
            "has not signed",
        ),
        (encode_answer(answer(request=bytes(32)), COORDINATOR), "another request"),
        (encode_answer(answer(roster=FOUNDED.encoded), COORDINATOR), "no member"),
        (encode_answer(answer(federation="other"), COORDINATOR), "another federation"),
        (b"FMA\x02" + bytes(200), "another version"),
        (b"what", "no answer"),
    ],
)
def test_any_other_answer_is_refused(encoded: bytes, said: str) -> None:
    with pytest.raises(MessageError, match=said):
        open_answer(encoded, COORDINATOR.public_key, b"\5" * 32)


@given(st.binary(max_size=300), st.sampled_from([b"FMQ\x01", b"FMA\x01", b""]))
def test_any_bytes_are_refused_in_one_way(content: bytes, mark: bytes) -> None:
    with pytest.raises(MessageError):
        open_request(mark + content)
    with pytest.raises(MessageError):
        open_answer(mark + content, COORDINATOR.public_key, bytes(32))
