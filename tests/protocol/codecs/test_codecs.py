import contextlib
import os
import subprocess
import sys

import numpy as np
import pytest
import zstandard
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fedmedclip.protocol.codecs import (
    codec_named,
    decode_head,
    delta_codec_named,
    known_codecs,
    maximum_encoded_bytes,
    order0_entropy_bytes,
)
from fedmedclip.protocol.errors import CodecError, HeadError, InvalidInputError
from fedmedclip.protocol.heads.head import HeadSpecification, TensorSpecification, head_digest
from fedmedclip.protocol.heads.shared_heads import shared_head_specification
from tests import ROOT
from tests.protocol.codecs.codec_examples import (
    FAM,
    PRESETS,
    SMALL,
    digests_of_all_codecs,
    encoded,
    energy,
    noise,
    round_trip,
    squared_error,
    structured,
)


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("scale", [0.0, 1e-42, 1e-6, 1.0, 1e4])
def test_a_round_trip_keeps_names_and_shapes_and_repeats_its_bytes(name, scale):
    delta = noise(SMALL, 1, scale)
    first = encoded(name, delta)
    assert first == encoded(name, delta)
    decoded = decode_head(first.data, SMALL)
    SMALL.check(decoded)
    assert list(decoded) == list(delta)
    assert len(first.data) <= maximum_encoded_bytes(SMALL)
    if codec_named(name).lossless:
        assert head_digest(decoded) == head_digest(delta)


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("bound", [1e-3, 1.0])
def test_a_lossy_codec_never_makes_a_delta_worse_than_sending_nothing(name, bound):
    for delta in (noise(FAM, 2, bound), structured(FAM, 3)):
        assert squared_error(delta, round_trip(name, delta, FAM)) < energy(delta)


def test_more_bits_and_more_rank_leave_out_less():
    delta = noise(FAM, 4)
    for family in (
        ["sign", "int2", "int3", "int4", "int8", "lossless"],
        ["topk:share=0.01", "topk:share=0.1", "topk:share=0.5", "topk:share=0.5,bits=8"],
        [
            "lowrank:rank=2",
            "lowrank:rank=4",
            "lowrank:rank=16",
            "lowrank:rank=16,bits=4",
            "lowrank:rank=40,bits=8",
        ],
    ):
        errors = [squared_error(delta, round_trip(name, delta, FAM)) for name in family]
        assert errors == sorted(errors, reverse=True)
        assert len(set(errors)) == len(errors)
        sizes = [len(encoded(name, delta, FAM).data) for name in family]
        assert sizes == sorted(sizes)


def test_int8_error_is_at_most_half_a_scale_per_row():
    delta = noise(SMALL, 2)
    decoded = round_trip("int8", delta)
    for row, found in zip(delta["first.weight"], decoded["first.weight"], strict=True):
        # Scales are rounded up to two bytes, by less than 2**-7.
        assert np.abs(row - found).max() <= np.abs(row).max() / 127 / 2 * 1.008


def test_low_rank_finds_what_has_low_rank():
    delta = structured(FAM, 5, noise_share=0.0)
    delta["first.bias"] = 30 * delta["first.weight"][:, 5]
    decoded = round_trip("lowrank:rank=3,bits=8", delta, FAM)
    assert squared_error(delta, decoded) < 1e-3 * energy(delta)
    assert len(encoded("lowrank", delta, FAM).data) < 4 * FAM.size / 30


def test_topk_sends_the_largest_values_and_nothing_else():
    delta = noise(FAM, 6)
    values = np.concatenate([array.ravel() for array in delta.values()])
    decoded = np.concatenate(
        [array.ravel() for array in round_trip("topk:share=0.02,bits=8", delta, FAM).values()]
    )
    sent = np.flatnonzero(decoded)
    assert len(sent) == -(-len(values) * 2 // 100)
    assert np.abs(values[sent]).min() >= np.abs(np.delete(values, sent)).max()
    assert np.array_equal(np.sign(decoded[sent]), np.sign(values[sent]))


@pytest.mark.parametrize("name", ["int8", "int4", "int2", "sign", "topk:share=0.5", "lowrank:rank=8"])
def test_rows_that_a_mask_switched_off_cost_nothing_and_stay_zero(name):
    specification = shared_head_specification("fedmedclip", 160)
    full = noise(specification, 7)
    masked = {array_name: array.copy() for array_name, array in full.items()}
    for array in masked.values():
        array[20:120] = 0
    sizes = [len(encoded(name, delta, specification).data) for delta in (full, masked)]
    # The right factor of a low-rank delta has a row for every column, and topk finds its share elsewhere.
    assert sizes[1] < {"lowrank:rank=8": 0.75, "topk:share=0.5": 0.9}.get(name, 0.45) * sizes[0]
    decoded = round_trip(name, masked, specification)
    assert not decoded["first.weight"][20:120].any()
    assert not decoded["second.weight"][20:120].any()


def test_small_and_large_vectors_of_a_matrix_both_keep_their_shape():
    delta = noise(FAM, 8, 1e-3)
    delta["first.bias"] *= np.float32(1e4)
    delta["first.threshold"] *= np.float32(1e-4)
    decoded = round_trip("lowrank:rank=48,bits=8", delta, FAM)
    for name, array in delta.items():
        assert np.abs(decoded[name] - array).max() < 0.1 * np.abs(array).max(), name


@pytest.mark.parametrize("name", ["lowrank", "lowrank:rank=2", "auto:bytes=1500", "int4"])
def test_running_statistics_arrive_within_three_rounds_without_a_residual(name):
    specification = shared_head_specification("facmic", 64, 4)
    measured = [tensor.name for tensor in specification.tensors if tensor.measured]
    assert measured == ["norm.running_mean", "norm.running_var"]
    truth = noise(specification, 9, 1e-3)
    arrived = {name: np.zeros_like(truth[name]) for name in measured}
    for _ in range(3):
        delta = noise(specification, 10, 1e-3) | {name: truth[name] - arrived[name] for name in measured}
        decoded = round_trip(name, delta, specification)
        arrived = {name: arrived[name] + decoded[name] for name in measured}
    for statistic in measured:
        assert np.linalg.norm(truth[statistic] - arrived[statistic]) < 0.2 * np.linalg.norm(truth[statistic])


@pytest.mark.parametrize("name", [*PRESETS, "lowrank:rank=60,bits=3"])
def test_every_stream_is_close_to_its_order_0_entropy(name):
    specification = shared_head_specification("fedmedclip", 192)
    data = encoded(name, structured(specification, 9, noise_share=1.0), specification).data
    # zstd's frame and Huffman table take some 20 bytes, which count in a message of 300.
    assert len(data) <= 1.1 * order0_entropy_bytes(data, specification) + 16


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused_by_the_encoder(value):
    delta = noise(SMALL)
    delta["lonely"][2] = value
    with pytest.raises(HeadError, match="NaN or infinite"):
        encoded("int8", delta)


@pytest.mark.parametrize(
    "name", ["fp16", "int8", "int3", "sign", "topk", "lowrank", "auto:bytes=1460", "moments"]
)
def test_absurd_values_are_refused_by_the_encoder(name):
    delta = noise(SMALL)
    delta["first.weight"][2, 2] = 1e35
    delta["lonely"][1] = 1e35
    with pytest.raises(HeadError, match="too large"):
        encoded(name, delta)


class TestMemory:
    def test_a_warm_start_leaves_out_less(self):
        delta = noise(FAM, 10)
        cold = encoded("lowrank:rank=3", delta, FAM)
        warm = encoded("lowrank:rank=3", delta, FAM, cold.memory)
        warmer = encoded("lowrank:rank=3", delta, FAM, warm.memory)
        errors = [squared_error(delta, decode_head(one.data, FAM)) for one in (cold, warm, warmer)]
        assert errors[0] > errors[1] > errors[2]

    @pytest.mark.parametrize("name", ["lowrank", "lowrank:rank=3,bits=8", "auto:bytes=1460", "moments"])
    @pytest.mark.parametrize("memory", [b"x", bytes(40), bytes(range(256)) * 9, b"\xff" * 2000])
    def test_memory_of_something_else_does_no_harm(self, name, memory):
        delta = noise(FAM, 11)
        data = encoded(name, delta, FAM, memory).data
        assert squared_error(delta, decode_head(data, FAM)) < energy(delta)

    def test_memory_of_another_rank_is_made_use_of(self):
        delta = noise(FAM, 12)
        memory = encoded("lowrank:rank=3", delta, FAM).memory
        cold, warm = (encoded("lowrank:rank=6", delta, FAM, given) for given in (b"", memory))
        assert cold.data != warm.data
        assert squared_error(delta, decode_head(warm.data, FAM)) < energy(delta)

    @pytest.mark.parametrize("name", ["lossless", "int4", "sign", "topk"])
    def test_others_keep_none(self, name):
        assert encoded(name, noise(SMALL), memory=b"anything").memory == b""


class TestNames:
    def test_every_preset_is_known_by_its_name(self):
        for name in PRESETS:
            assert codec_named(name).name == name
            assert name.partition(":")[0] in known_codecs()

    @pytest.mark.parametrize(
        ("name", "complaint"),
        [
            ("int9", "unknown codec 'int9'; did you mean 'int"),
            ("", "unknown codec ''"),
            ("lowrank:", "not a parameter"),
            ("lowrank:rank", "'rank' is not a parameter"),
            ("lowrank:rank=", "not a parameter"),
            ("lowrank:rank=3,rank=4", "not a parameter"),
            ("lowrank:rank=0", "rank is '0', it must be from 1 to 64"),
            ("lowrank:rank=65", "from 1 to 64"),
            ("lowrank:rank=-1", "from 1 to 64"),
            ("lowrank:rank=²", "from 1 to 64"),
            ("lowrank:rank=" + "1" * 5000, "has 5013 characters, at most 64"),
            ("lowrank:bits=5", "bits is '5', it must be one of 2, 3, 4, 8"),
            ("lowrank:rank=4,colour=red", "no parameter colour"),
            ("topk:share=0", "share is '0', it must be a number from 1e-06 to 1"),
            ("topk:share=nan", "number from"),
            ("topk:share=much", "number from"),
            ("lossless:rank=4", "no parameter rank"),
            ("int8:scale=column", "one of row, array"),
            ("auto", "auto:bytes=3000 or auto:kbits=64,seconds=1"),
            ("auto:kbits=64", "auto:bytes=3000 or auto:kbits=64,seconds=1"),
            ("auto:bytes=3000,seconds=1", "auto:bytes=3000 or auto:kbits=64,seconds=1"),
            ("auto:kbits=1,seconds=1", "a budget of 125 bytes is below 256"),
            ("auto:bytes=100", "from 256"),
        ],
    )
    def test_what_cannot_be_meant_is_named(self, name, complaint):
        with pytest.raises(InvalidInputError) as caught:
            codec_named(name)
        assert complaint in str(caught.value)

    def test_a_federation_sends_no_whole_heads(self):
        assert delta_codec_named("lowrank").name == "lowrank"
        with pytest.raises(InvalidInputError, match="sends whole heads"):
            delta_codec_named("paper-fp16-zlib")


class TestHostileBytes:
    def test_unknown_codecs_are_named(self):
        with pytest.raises(CodecError, match="ff is not known"):
            decode_head(b"\xff123", SMALL)
        with pytest.raises(CodecError, match="missing"):
            decode_head(b"", SMALL)

    @pytest.mark.parametrize("start", [b"\x01\x20", b"\x01\x08", b"\x02\x01\x00" + bytes(2 * 8)])
    def test_a_decompression_bomb_is_refused_before_it_is_unpacked(self, start):
        bomb = start + b"\x01" + zstandard.compress(bytes(1 << 26))[4:]
        assert len(bomb) < 10_000
        with pytest.raises(CodecError, match="unpacks to 67108864 bytes"):
            decode_head(bomb, SMALL)

    def test_a_frame_that_hides_its_size_is_refused(self):
        frame = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(1 << 20))
        with pytest.raises(CodecError, match="unpacks to"):
            decode_head(b"\x01\x20\x01" + frame[4:], SMALL)

    def test_a_zlib_bomb_is_refused(self):
        import zlib

        with pytest.raises(CodecError, match="not one zlib stream"):
            decode_head(b"\x04" + zlib.compress(bytes(1 << 26)), SMALL)

    @pytest.mark.parametrize(
        "scale", [b"\xc0\x7f", b"\x80\x7f", b"\x80\xbf", b"\x00\x7f", b"\x00\x80", b"\x01\x00"]
    )
    def test_scales_that_are_nan_infinite_negative_huge_or_subnormal_are_refused(self, scale):
        specification = HeadSpecification((TensorSpecification("weight", (1, 4)),))
        with pytest.raises(CodecError, match="scale"):
            decode_head(b"\x01\x08\x00" + scale + bytes(4), specification)
        with pytest.raises(CodecError, match="scale"):
            decode_head(b"\x03\x03\x01\x00" + scale + b"\x01" + b"\x00" + bytes(3), specification)

    def test_a_product_beyond_float32_is_refused(self):
        specification = HeadSpecification((TensorSpecification("weight", (1, 2)),))
        # Rank 1 in 8 bits, scale 2**100, weight 255, integers 127: 255 * 127 * 127 * 2**100 fits ...
        body = b"\x03\x08\x01\x00\x80\x71\xff\x00" + b"\xfe" * 3
        assert np.isfinite(decode_head(body, specification)["weight"]).all()
        # ... and a vector's exponent of -60 makes it 2**181.
        specification = HeadSpecification(
            (TensorSpecification("weight", (1, 1)), TensorSpecification("bias", (1,)))
        )
        with pytest.raises(CodecError, match="out of range"):
            decode_head(b"\x03\x08\x01\x00\x80\x71\xff\xc4\x00" + b"\xfe" * 3, specification)

    @pytest.mark.parametrize(
        ("body", "complaint"),
        [
            (b"\x03\x03\x08\x00", "rank 8 for an array of 12 x 13"),
            (b"\x03\x05\x00", "factors of 5 bits"),
            (b"\x03\x03\x01\x00\x00", "ends after"),
            (b"\x01\x09\x00", "number format 9"),
            (b"\x02\x05", "values of 5 bits"),
            (b"\x02\x01\xff\xff\xff\xff\x7f", "at most"),
            (b"\x02\x01\x01\x03\x00\x08\x1e" + b"\x00" * 4, "outside its"),
            (b"\x02\x01\x02\x04\x00\x08\x00\xff", "beyond all heads"),
        ],
    )
    def test_counts_and_kinds_that_cannot_be_are_named(self, body, complaint):
        if "rank 8" in complaint:
            body = body.replace(b"\x08", b"\x0d", 1)
            complaint = complaint.replace("rank 8", "rank 13")
        with pytest.raises(CodecError) as caught:
            decode_head(body, SMALL)
        assert complaint in str(caught.value)

    @pytest.mark.parametrize("name", PRESETS)
    def test_nothing_may_follow_and_nothing_may_lack(self, name):
        data = encoded(name, noise(SMALL)).data
        with pytest.raises(CodecError):
            decode_head(data + b"x", SMALL)
        for end in range(len(data)):
            with pytest.raises(CodecError):
                decode_head(data[:end], SMALL)

    @settings(max_examples=400, deadline=None)
    @given(data=st.binary(max_size=400), identifier=st.sampled_from([1, 2, 3, 4, 5]))
    @example(data=b"", identifier=3)
    def test_random_bytes_never_do_worse_than_a_codec_error(self, data, identifier):
        with contextlib.suppress(CodecError):
            SMALL.check(decode_head(bytes([identifier]) + data, SMALL))

    @settings(max_examples=600, deadline=None)
    @given(position=st.integers(0, 400), value=st.integers(0, 255), name=st.sampled_from(PRESETS))
    def test_a_changed_byte_gives_an_error_or_a_valid_head(self, position, value, name):
        data = bytearray(encoded(name, noise(SMALL)).data)
        data[position % len(data)] = value
        with contextlib.suppress(CodecError):
            SMALL.check(decode_head(bytes(data), SMALL))


class TestSameBitsEverywhere:
    """What is decoded must not depend on the machine; the bytes themselves also on zstd's version."""

    SCRIPT = (
        "from tests.protocol.codecs.codec_examples import digests_of_all_codecs\n"
        "print(*digests_of_all_codecs())"
    )

    def test_the_digests_are_those_of_every_other_machine(self):
        assert (
            digests_of_all_codecs()[1] == "602bfef49ea051c20e6e4c40e8cca70017ede18762fc7ef7c8543e2e2ca2f603"
        )

    @pytest.mark.parametrize(
        "environment",
        [
            {"OPENBLAS_CORETYPE": "Prescott", "OPENBLAS_NUM_THREADS": "1"},
            pytest.param(
                {"OPENBLAS_CORETYPE": "Sandybridge", "OPENBLAS_NUM_THREADS": "2"}, marks=pytest.mark.slow
            ),
            pytest.param(
                {"NPY_DISABLE_CPU_FEATURES": "AVX2 FMA3 AVX512F AVX512_SKX X86_V3 X86_V4"},
                marks=pytest.mark.slow,
            ),
        ],
    )
    def test_another_blas_kernel_and_instruction_set_give_the_same_bytes(self, environment):
        process = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", self.SCRIPT],
            cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert tuple(process.stdout.split()) == digests_of_all_codecs()
