"""Metrics as they travel: never more than 200 bytes, and nothing in them that is not bounded."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmedclip.protocol import topics
from fedmedclip.protocol.envelope import NO_IDENTITY, open_envelope, seal
from fedmedclip.protocol.errors import MessageError
from fedmedclip.protocol.messages import Figures, Metrics, decode_message, encode_message
from tests.golden.contents import KEYS

LONGEST_TOPIC = topics.up("f" * 32, "s" * 32)
LARGEST = Figures(200, 200, 200, 2000)

figures = st.none() | st.builds(Figures, *[st.integers(0, 200)] * 3, st.integers(0, 2000))
images = st.none() | st.integers(1, 10**9)
versions = st.integers(0, 10**6)
every_metrics = st.builds(
    Metrics,
    version=versions,
    number=st.integers(0, 1000),
    active=st.none() | versions,
    verdict=st.integers(0, 15),
    train_images=images,
    validation_images=images,
    test_images=images,
    zero_shot=figures,
    shared=figures,
    private=figures,
    ensemble=figures,
    software=st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=32),
)


@given(every_metrics)
def test_whatever_a_site_says_takes_at_most_200_bytes_and_arrives_as_it_was(metrics):
    sealed = seal(metrics, LONGEST_TOPIC, KEYS["site"], NO_IDENTITY)
    assert len(sealed) <= 200
    opened = open_envelope(sealed, LONGEST_TOPIC)
    assert opened.verify(KEYS["site"].public_key, NO_IDENTITY) == metrics


def test_the_largest_of_all_takes_172_bytes():
    largest = Metrics(10**6, 1000, 10**6, 15, *[10**9] * 3, *[LARGEST] * 4, "s" * 32)
    assert len(seal(largest, LONGEST_TOPIC, KEYS["site"], NO_IDENTITY)) == 172


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (1, 1_000_001), (1, -1), (2, 1001), (4, 16), (5, 0), (5, 2.5), (6, -3), (11, [201, 0, 0, 0]),
        (11, [0, 0, 0, 2001]), (11, [0.5, 0, 0, 0]), (11, [1, 1, 1]), (12, "s" * 33), (12, "höher"),
        (12, "two\nlines"), (12, None),
    ],
)  # fmt: skip
def test_absurd_values_are_refused(place, value):
    items = msgspec.msgpack.decode(
        encode_message(Metrics(7, 0, 7, 1, 386, 48, 96, LARGEST, LARGEST, None, LARGEST, "0.3.0"))
    )
    items[place] = value
    with pytest.raises(MessageError):
        decode_message(msgspec.msgpack.encode(items))


def test_a_site_says_them_on_its_own_topic_alone():
    metrics = Metrics(7, 0, 7, 1, *[None] * 7, "0.3.0")
    for topic in (topics.down("trial", "site-a"), topics.status("trial", "site-a"), topics.head("trial")):
        with pytest.raises(MessageError, match="is not a message for"):
            open_envelope(seal(metrics, topic, KEYS["site"], NO_IDENTITY), topic)
