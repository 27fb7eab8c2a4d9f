import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmedclip.protocol.envelope import NO_IDENTITY, open_envelope, seal
from fedmedclip.protocol.errors import MessageError
from fedmedclip.protocol.messages import (
    HeadRequest,
    Join,
    Plan,
    Status,
    Update,
    decode_message,
    encode_message,
)
from fedmedclip.protocol.objects import refer_to
from fedmedclip.protocol.signature import is_signed_by, load_or_create_signing_key, new_signing_key
from tests.protocol.moments import a_moment

KEY = new_signing_key()
TOPIC = "fmc1/trial/up/site-a"
IDENTITY = bytes(range(16))
UPDATE = Update(3, 386, refer_to(b"x" * 1000, 131072), 0)


def test_a_sealed_message_opens_and_verifies():
    message = open_envelope(seal(UPDATE, TOPIC, KEY, IDENTITY), TOPIC).verify(KEY.public_key, IDENTITY)
    assert message == UPDATE


def test_another_key_identity_or_topic_or_a_changed_byte_is_refused():
    payload = seal(UPDATE, TOPIC, KEY, IDENTITY)
    changed = payload.replace(b"x" * 8, b"y" * 8)
    for received, topic, public_key, identity in (
        (payload, TOPIC, new_signing_key().public_key, IDENTITY),
        (payload, TOPIC, KEY.public_key, IDENTITY[::-1]),
        (payload, TOPIC, KEY.public_key, NO_IDENTITY),
        (payload, "fmc1/trial/up/site-b", KEY.public_key, IDENTITY),
        (changed, TOPIC, KEY.public_key, IDENTITY),
    ):
        with pytest.raises(MessageError, match=f"the signature of a message on {topic} is not its sender's"):
            open_envelope(received, topic).verify(public_key, identity)


def test_a_status_verifies_whether_or_not_its_site_knew_the_plan():
    topic, status = "fmc1/trial/status/site-a", Status(bytes(8), online=False, version=-1, moment=a_moment())
    will = seal(status, topic, KEY, NO_IDENTITY)
    assert will == seal(status, topic, KEY, IDENTITY)
    assert open_envelope(will, topic).verify(KEY.public_key, IDENTITY) == status


@pytest.mark.parametrize("topic", ["fmc1/trial/plan", "fmc1/trial/status/site-a", "fmc1/trial", "update"])
def test_a_message_on_a_topic_that_does_not_carry_it_is_refused(topic):
    with pytest.raises(MessageError, match=f"Update is not a message for {topic}"):
        open_envelope(seal(UPDATE, topic, KEY, IDENTITY), topic)


def test_an_unknown_version_is_named():
    payload = bytearray(seal(UPDATE, TOPIC, KEY, IDENTITY))
    payload[2] = 9
    with pytest.raises(MessageError, match="protocol version 9, this software speaks 4"):
        open_envelope(bytes(payload), TOPIC)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300))
def test_random_bytes_never_do_worse_than_a_message_error(data):
    for payload in (data, b"FM\x04" + data):
        try:
            open_envelope(payload, TOPIC).verify(KEY.public_key, IDENTITY)
        except MessageError:
            continue
        pytest.fail("random bytes passed for a signed message")


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_random_bodies_decode_to_a_known_message_or_are_refused(body):
    try:
        message = decode_message(body)
    except MessageError:
        return
    assert decode_message(encode_message(message)) == message


@pytest.mark.parametrize(
    "message",
    [
        HeadRequest(-2),
        HeadRequest(2**40),
        Update(0, 1, UPDATE.payload, 0),
        Update(1, 0, UPDATE.payload, 0),
        Join(b"short", bytes(32), 5, -1, "", "", a_moment(), 1),
    ],
)
def test_values_out_of_bounds_are_refused(message):
    with pytest.raises(MessageError, match="malformed"):
        decode_message(encode_message(message))


def test_a_key_file_is_made_once_and_for_its_owner_only(tmp_path):
    path = tmp_path / "state" / "site.key"
    key = load_or_create_signing_key(path)
    assert load_or_create_signing_key(path).public_key == key.public_key
    assert path.stat().st_mode & 0o077 == 0


REQUEST = b"\x92\x09\x05"  # HeadRequest(5)


@pytest.mark.parametrize("body", [REQUEST, b"\x92\xcc\x09\xd1\x00\x05", b"\xdd\x00\x00\x00\x02\x09\x05"])
def test_any_encoding_of_the_same_integers_and_lengths_is_read(body):
    assert decode_message(body) == HeadRequest(5)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        REQUEST + b"\x00",  # bytes after the array
        b"\x91\x09",  # an item too few
        b"\x93\x09\x05\x05",  # an item too many
        b"\x92\x7f\x05",  # an unknown tag
        b"\x92\x09\xc3",  # true is no integer
        b"\x92\x09\xcb\x40\x14\x00\x00\x00\x00\x00\x00",  # nor is 5.0
        b"\x81\x09\x05",  # a map
        b"\x94\x04\xa812345678\xc3\xa0",  # a string where a binary belongs
        b"\x94\x04\xc4\x0812345678\x01\xa0",  # 1 is no bool
        b"\x94\x04\xc4\x0812345678\xc3\xc4\x00",  # a binary where a string belongs
        b"\x94\x04\xc4\x0812345678\xc3\xa1\xff",  # not UTF-8
        b"\x93\x08\xc4\x20" + bytes(32) + b"\x90",  # a request for no block
    ],
)
def test_a_body_that_breaks_a_rule_of_the_format_is_refused(body):
    with pytest.raises(MessageError, match="malformed"):
        decode_message(body)


def test_the_frame_is_what_the_specification_says():
    payload = seal(UPDATE, TOPIC, KEY, IDENTITY)
    header, body, signature = payload[:3], payload[3:-64], payload[-64:]
    assert (header, body) == (b"FM\x04", encode_message(UPDATE))
    assert is_signed_by(KEY.public_key, signature, header + IDENTITY + TOPIC.encode() + b"\0" + body)
    topic, status = "fmc1/trial/status/site-a", Status(bytes(8), online=True, version=3, moment=a_moment())
    signature = seal(status, topic, KEY, IDENTITY)[-64:]
    signed = header + bytes(16) + topic.encode() + b"\0" + encode_message(status)
    assert is_signed_by(KEY.public_key, signature, signed)


@pytest.mark.parametrize("payload", [b"", b"FM", b"FM\x04", b"FM\x04" + bytes(64), b"MF\x02" + bytes(65)])
def test_what_cannot_hold_a_message_is_not_of_this_protocol(payload):
    with pytest.raises(MessageError, match="is not one of this protocol"):
        open_envelope(payload, TOPIC)


def test_the_least_that_can_hold_a_message_is_looked_at():
    with pytest.raises(MessageError, match="malformed"):
        open_envelope(b"FM\x04" + bytes(65), TOPIC)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_plan_whose_settings_are_no_numbers_is_refused(value):
    plan = Plan(
        bytes(16), bytes(32), "fedmedclip", bytes(32), 16, 3, 1, "int8", "int8", {}, 1, 1, False, 1e3, None
    )
    body = msgspec.msgpack.decode(encode_message(plan))
    body[10] = {"shared_learning_rate": value}
    with pytest.raises(MessageError, match="finite"):
        decode_message(msgspec.msgpack.encode(body))
