import contextlib
import struct

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.codecs.presets import CODECS, codec_named, decode_head, encode_head, maximum_encoded_bytes
from protocol.errors import CodecError, HeadError, InvalidInputError
from protocol.head import HeadSpecification, TensorSpecification

SPECIFICATION = HeadSpecification(
    (
        TensorSpecification("weight", (6, 4), initial_bound=0.5),
        TensorSpecification("bias", (6,), initial_bound=0.5),
        TensorSpecification("threshold", (3,)),
    )
)


def random_head(seed=0, scale=1.0):
    generator = np.random.default_rng(seed)
    return {
        tensor.name: (scale * generator.standard_normal(tensor.shape)).astype(np.float32)
        for tensor in SPECIFICATION.tensors
    }


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
@pytest.mark.parametrize("scale", [0.0, 1e-42, 1e-6, 1.0, 1e20])
def test_round_trip_keeps_names_shapes_and_is_deterministic(codec, scale):
    head = random_head(1, scale)
    encoded = encode_head(codec, head, SPECIFICATION).data
    assert encoded == encode_head(codec, head, SPECIFICATION).data
    decoded = decode_head(encoded, SPECIFICATION)
    SPECIFICATION.check(decoded)
    assert len(encoded) <= maximum_encoded_bytes(SPECIFICATION)
    if codec.lossless:
        for name, array in head.items():
            assert array.tobytes() == decoded[name].tobytes()


def test_int8_error_is_at_most_half_a_scale_per_row():
    head = random_head(2)
    decoded = decode_head(encode_head(CODECS["int8"], head, SPECIFICATION).data, SPECIFICATION)
    for row, found in zip(head["weight"], decoded["weight"], strict=True):
        assert np.abs(row - found).max() <= np.abs(row).max() / 127 / 2 * 1.0001
    assert np.abs(head["bias"] - decoded["bias"]).max() <= np.abs(head["bias"]).max() / 127 / 2 * 1.0001


def test_int8_is_about_a_quarter_of_float32():
    specification = HeadSpecification((TensorSpecification("weight", (128, 128)),))
    head = {"weight": np.random.default_rng(0).standard_normal((128, 128)).astype(np.float32)}
    assert len(encode_head(CODECS["int8"], head, specification).data) < 0.27 * 4 * specification.size


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused_by_the_encoder(value):
    head = random_head()
    head["bias"][2] = value
    with pytest.raises(HeadError, match="NaN or infinite"):
        encode_head(CODECS["int8"], head, SPECIFICATION)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0, 3e38])
def test_hostile_scales_are_refused(value):
    size = CODECS["int8"].packed_size(SPECIFICATION)
    packed = struct.pack("<f", value) + bytes(size - 4)
    with pytest.raises(CodecError, match="scale"):
        decode_head(b"\x02" + zstandard.compress(packed), SPECIFICATION)


def test_hostile_float_values_are_refused():
    size = CODECS["lossless"].packed_size(SPECIFICATION)
    with pytest.raises(CodecError, match="NaN"):
        decode_head(b"\x01" + zstandard.compress(b"\xff" * size), SPECIFICATION)


def test_a_decompression_bomb_is_refused_before_it_is_unpacked():
    bomb = b"\x01" + zstandard.compress(bytes(1 << 26))
    assert len(bomb) < 10_000
    with pytest.raises(CodecError, match="unpacks to 67108864 bytes"):
        decode_head(bomb, SPECIFICATION)


def test_a_frame_that_hides_its_size_is_refused():
    compressor = zstandard.ZstdCompressor(write_content_size=False)
    with pytest.raises(CodecError):
        decode_head(b"\x01" + compressor.compress(bytes(1 << 20)), SPECIFICATION)


def test_a_frame_that_lies_about_its_size_is_refused():
    size = CODECS["lossless"].packed_size(SPECIFICATION)
    honest = bytearray(zstandard.compress(bytes(size)))
    longer = bytearray(zstandard.compress(bytes(size + 64)))
    assert zstandard.frame_content_size(bytes(honest)) == size
    position = longer.index(struct.pack("<B", (size + 64) & 0xFF), 4)
    longer[position] = honest[position]
    with pytest.raises(CodecError):
        decode_head(b"\x01" + bytes(longer), SPECIFICATION)


def test_trailing_bytes_are_refused():
    encoded = encode_head(CODECS["int8"], random_head(), SPECIFICATION).data
    with pytest.raises(CodecError):
        decode_head(encoded + b"x", SPECIFICATION)


def test_unknown_codecs_are_named():
    with pytest.raises(CodecError, match="ff is not known"):
        decode_head(b"\xff123", SPECIFICATION)
    with pytest.raises(CodecError, match="missing"):
        decode_head(b"", SPECIFICATION)
    with pytest.raises(InvalidInputError, match="known: int8, lossless"):
        codec_named("int9")


@settings(max_examples=300, deadline=None)
@given(data=st.binary(max_size=400))
def test_random_bytes_never_do_worse_than_a_codec_error(data):
    with contextlib.suppress(CodecError):
        SPECIFICATION.check(decode_head(data, SPECIFICATION))


@settings(max_examples=200, deadline=None)
@given(position=st.integers(0, 200), value=st.integers(0, 255), codec=st.sampled_from(sorted(CODECS)))
def test_a_changed_byte_gives_an_error_or_a_valid_head(position, value, codec):
    encoded = bytearray(encode_head(CODECS[codec], random_head(), SPECIFICATION).data)
    encoded[position % len(encoded)] = value
    with contextlib.suppress(CodecError):
        SPECIFICATION.check(decode_head(bytes(encoded), SPECIFICATION))
