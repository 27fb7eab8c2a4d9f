"""The range coder and its integers: what goes in comes out, in about as many bits as it holds."""

import contextlib
import math
from itertools import chain

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmedclip.protocol.codecs.integer_models import LARGEST_INTEGER, IntegerModel
from fedmedclip.protocol.codecs.range_coder import Contexts, Decoder, Encoder, FullError
from fedmedclip.protocol.errors import CodecError

INTEGERS = st.lists(
    st.one_of(st.integers(-3, 3), st.integers(-LARGEST_INTEGER, LARGEST_INTEGER)), max_size=200
)


def coded(integers):
    encoder = Encoder(1 << 20)
    IntegerModel().code_row(encoder, integers)
    return encoder.finish()


@given(INTEGERS)
def test_integers_come_back_and_take_all_bytes(integers):
    data = coded(integers)
    decoder = Decoder(data)
    assert IntegerModel().code_row(decoder, [0] * len(integers)).tolist() == integers
    decoder.finish()
    longer = Decoder(data + b"\0")
    IntegerModel().code_row(longer, [0] * len(integers))
    with pytest.raises(CodecError, match=f"there are {len(data) + 1}"):
        longer.finish()


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 2)), max_size=3000))
def test_bits_come_back_whatever_was_counted(bits):
    """Long runs let the counts be halved, and let a carry run through bytes of 255."""
    encoder, contexts = Encoder(1 << 20), Contexts(2)
    for bit, context in bits:
        encoder.even_bits(bit, 1) if context == 2 else encoder.bit(contexts, context, bit)
    decoder, contexts = Decoder(encoder.finish()), Contexts(2)
    for bit, context in bits:
        assert bit == (decoder.even_bits(0, 1) if context == 2 else decoder.bit(contexts, context, 0))
    decoder.finish()


def test_a_carry_runs_through_bytes_that_are_full():
    encoder, contexts = Encoder(1 << 20), Contexts(1)
    # Nearly the whole interval is taken from below: low bytes fill up with 255 until the last bit carries.
    encoder.even_bits((1 << 40) - 1, 40)
    for _ in range(2000):
        encoder.bit(contexts, 0, 1)
    data = encoder.finish()
    decoder, contexts = Decoder(data), Contexts(1)
    assert decoder.even_bits(0, 40) == (1 << 40) - 1
    assert all(decoder.bit(contexts, 0, 0) for _ in range(2000))
    decoder.finish()


@pytest.mark.parametrize("spread", [0.3, 1.0, 5.0, 100.0])
def test_normal_integers_take_hardly_more_than_their_entropy(spread):
    integers = np.rint(np.random.default_rng(0).normal(0, spread, 4000)).astype(int)
    shares = np.unique(integers, return_counts=True)[1] / len(integers)
    entropy = -sum(share * math.log2(share) for share in shares) * len(integers) / 8
    assert len(coded(integers.tolist())) < 1.03 * entropy + 20


def test_rows_of_unlike_size_do_not_spoil_each_other():
    generator = np.random.default_rng(1)
    rows = [np.rint(generator.normal(0, spread, 300)).astype(int).tolist() for spread in (40, 1, 0.4, 10)]
    assert len(coded([*chain(*rows)])) < 1.05 * sum(map(len, map(coded, rows)))


def test_an_encoder_stops_at_the_most_it_may_write():
    with pytest.raises(FullError):
        IntegerModel().code_row(Encoder(10), range(100))


@given(st.binary(max_size=60), st.integers(0, 100))
def test_any_bytes_give_integers_within_their_limit_or_an_error(data, count):
    with contextlib.suppress(CodecError):
        integers = IntegerModel().code_row(Decoder(data), [0] * count)
        assert (np.abs(integers) <= LARGEST_INTEGER).all()


def test_bytes_that_end_are_an_error():
    with pytest.raises(CodecError, match="at least one byte"):
        Decoder(b"")
    with pytest.raises(CodecError, match="end after 1 bytes"):
        IntegerModel().code_row(Decoder(b"\xa5"), [0] * 100)
