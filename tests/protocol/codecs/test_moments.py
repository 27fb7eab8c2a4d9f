"""`moments`: statistics in one message, all as precise as the budget holds."""

import logging
import time
from itertools import pairwise

import numpy as np
import pytest

from fedmedclip.protocol.codecs import codec_named, decode_head, encode_head
from fedmedclip.protocol.codecs.contraction import energy_of
from fedmedclip.protocol.codecs.eigen_directions import leading_directions
from fedmedclip.protocol.codecs.error_feedback import apply_delta, compress
from fedmedclip.protocol.codecs.moments_format import IDENTIFIER, MOST_INTEGERS
from fedmedclip.protocol.envelope import NO_IDENTITY, OVERHEAD_BYTES, seal
from fedmedclip.protocol.errors import CodecError, HeadError
from fedmedclip.protocol.heads.head import HeadSpecification, TensorSpecification
from fedmedclip.protocol.heads.shared_heads import shared_head_specification
from fedmedclip.protocol.messages import Update
from fedmedclip.protocol.signature import new_signing_key
from tests.protocol.codecs.codec_examples import (
    FAM,
    STATISTICS,
    encoded,
    noise,
    round_trip,
    squared_error,
    statistics,
)

ZEROS = {tensor.name: np.zeros(tensor.shape, np.float32) for tensor in STATISTICS.tensors}


def relative_errors(wanted, found):
    return {
        name: np.linalg.norm(found[name] - wanted[name]) / np.linalg.norm(wanted[name]) for name in wanted
    }


def test_statistics_arrive_in_one_message():
    wanted = statistics()
    found = round_trip("moments:bytes=600", wanted, STATISTICS)
    errors = relative_errors(wanted, found)
    assert max(errors[name] for name in ("shares", "spread", "evidence")) < 1e-3
    assert errors["sums"] < 0.02
    assert errors["scatter"] < 0.15
    assert abs(np.trace(found["scatter"]) / wanted["spread"][0] - 1) < 0.05


@pytest.mark.parametrize("budget", [256, 300, 400, 600])
def test_no_message_exceeds_its_budget_and_most_of_it_is_used(budget):
    codec, key = codec_named(f"moments:bytes={budget}"), new_signing_key()
    for wanted in (statistics(), noise(STATISTICS)):
        data = encode_head(codec, wanted, STATISTICS).data
        update = Update(10**6, 10**9, data, 0)
        assert len(seal(update, "fmc1/federation/up/site", key, NO_IDENTITY)) <= budget
        assert len(data) > 0.8 * (budget - OVERHEAD_BYTES)


def test_more_budget_leaves_out_less():
    wanted = statistics()
    names = [f"moments:bytes={budget}" for budget in (300, 400, 600, 900)]
    errors = [squared_error(wanted, round_trip(name, wanted, STATISTICS)) for name in names]
    assert errors == sorted(errors, reverse=True)


def test_rare_classes_are_as_exact_as_their_counts_allow():
    wanted = statistics()
    found = round_trip("moments:bytes=600", wanted, STATISTICS)
    error = np.sqrt(((wanted["sums"] - found["sums"]) ** 2).mean(axis=1))
    of_counts = error / np.sqrt(wanted["shares"])
    assert of_counts.max() < 2 * of_counts.min()
    assert error[wanted["shares"].argmin()] < 0.5 * error[wanted["shares"].argmax()]


def test_directions_of_a_symmetric_matrix_save_bytes_of_the_rows_in_them():
    wanted = statistics()
    apart = HeadSpecification(
        tuple(tensor for tensor in STATISTICS.tensors if tensor.name in ("sums", "scatter"))
    )
    without = HeadSpecification(tuple(tensor for tensor in apart.tensors if tensor.name == "sums"))
    wanted = {name: wanted[name] for name in ("scatter", "sums")}
    errors = relative_errors(wanted, round_trip("moments:bytes=400", wanted, apart))
    alone = round_trip("moments:bytes=400", {"sums": wanted["sums"]}, without)
    # The rows alone have all 272 bytes, and yet with the matrix, in the same bytes, they lose less than half.
    assert errors["sums"] < 0.1
    assert relative_errors({"sums": wanted["sums"]}, alone)["sums"] < errors["sums"]


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_a_direction_keeps_its_sign_and_what_is_left_goes_to_the_diagonal(sign):
    specification = HeadSpecification((TensorSpecification("scatter", (32, 32), symmetric=True),))
    direction = np.random.default_rng(3).standard_normal(32)
    matrix = sign * np.outer(direction, direction) - sign * 0.5 * np.eye(32)
    wanted = {"scatter": matrix.astype(np.float32)}
    found = round_trip("moments:bytes=256", wanted, specification)["scatter"]
    assert np.linalg.norm(found - matrix) < 0.02 * np.linalg.norm(matrix)
    assert np.array_equal(found, found.T)


def test_a_lasting_difference_arrives():
    wanted, memory, residual = statistics(), b"", None
    head, shares = ZEROS, []
    for number in range(5):
        delta = wanted if number == 0 else ZEROS
        made = compress(codec_named("moments:bytes=500"), delta, residual, memory, STATISTICS)
        head, residual, memory = apply_delta(head, made.decoded, STATISTICS), made.residual, made.memory
        shares.append(made.left_out_norm)
        assert np.array_equal(head["scatter"], head["scatter"].T)
    assert all(later < earlier for earlier, later in pairwise(shares))
    assert relative_errors(wanted, head)["scatter"] < 0.05


def test_a_settled_head_costs_less(caplog):
    wanted, codec = statistics(), codec_named("moments:bytes=1000")
    first = encode_head(codec, wanted, STATISTICS)
    smaller = {name: np.float32(0.1) * array for name, array in wanted.items()}
    with caplog.at_level(logging.INFO, "fedmedclip.codec"):
        second = encode_head(codec, smaller, STATISTICS, first.memory)
    assert len(second.data) < 0.4 * len(first.data)
    assert "at 25 % of the budget" in caplog.text


def test_a_large_head_goes_as_auto_sends_it():
    specification = shared_head_specification("fedmedclip", 160)
    delta = noise(specification)
    theirs = encoded("auto:bytes=2000", delta, specification)
    assert encoded("moments:bytes=2000", delta, specification) == theirs
    assert encoded("moments:bytes=2000", noise(FAM), FAM).data[0] == IDENTIFIER


@pytest.mark.parametrize("shape", [(1, 1), (1, 3), (3, 1), (2, 2)])
def test_the_smallest_heads_have_room(shape):
    specification = HeadSpecification(
        (
            TensorSpecification("shares", (shape[0],)),
            TensorSpecification("sums", shape),
            TensorSpecification("scatter", (shape[1], shape[1]), symmetric=True),
            TensorSpecification("scalar", ()),
        )
    )
    wanted = noise(specification)
    for name, error in relative_errors(
        wanted, round_trip("moments:bytes=256", wanted, specification)
    ).items():
        assert error < 0.01, name


def test_a_budget_without_room_for_vectors_sends_them_coarsely_and_then_not_at_all():
    specification = HeadSpecification(
        tuple(TensorSpecification(f"vector{number}", (60,)) for number in range(10))
    )
    wanted = noise(specification)
    data = encoded("moments:bytes=400", wanted, specification).data
    assert 0 < squared_error(wanted, decode_head(data, specification)) < energy_of(wanted)
    many = HeadSpecification(tuple(TensorSpecification(f"v{number}", (60,)) for number in range(200)))
    with pytest.raises(HeadError, match="state a larger budget"):
        encoded("moments:bytes=256", noise(many), many)


def test_directions_are_the_eigenvectors_of_the_largest_eigenvalues():
    generator = np.random.default_rng(5)
    axes = np.linalg.qr(generator.standard_normal((40, 40)))[0]
    values = np.array([*(-8.0, 4.0, 2.0, -1.0, 0.5), *np.full(35, 0.01)])
    matrix = ((axes * values) @ axes.T).astype(np.float32)
    found = leading_directions((matrix + matrix.T) / 2, 5)
    np.testing.assert_allclose(found.values, values[:5], rtol=1e-3)
    np.testing.assert_allclose(np.abs(np.sum(found.vectors * axes[:, :5].T, axis=1)), 1, rtol=1e-3)


def test_a_stranger_cannot_make_a_receiver_work_long():
    huge = HeadSpecification((TensorSpecification("weight", (512, 4096)),))
    generator = np.random.default_rng(7)
    for content in (generator.bytes(50_000), b"\x40" + bytes(50_000), b"\x3f\x80" + b"\xff" * 50_000):
        length = bytes([len(content) & 0x7F | 0x80, len(content) >> 7 & 0x7F | 0x80, len(content) >> 14])
        started = time.process_time()
        with pytest.raises(CodecError):
            decode_head(bytes([IDENTIFIER]) + length + content, huge)
        assert time.process_time() - started < 5


def test_more_integers_than_may_be_are_refused():
    specification = HeadSpecification((TensorSpecification("vector", (MOST_INTEGERS + 1,)),))
    with pytest.raises(CodecError, match="more than 32768 integers"):
        decode_head(bytes([IDENTIFIER, 4]) + b"\x3f\x80\0\0", specification)


def test_only_square_arrays_that_start_equal_are_symmetric():
    for shape, bound in (((3, 4), 0.0), ((3,), 0.0), ((3, 3), 1.0)):
        with pytest.raises(ValueError, match="not symmetric"):
            TensorSpecification("scatter", shape, bound, symmetric=True)


@pytest.mark.parametrize("name", ["lowrank", "int2", "topk:share=0.2,bits=4", "moments"])
def test_a_symmetric_array_stays_so_whatever_the_codec(name):
    residual, memory, head = None, b"", ZEROS
    for seed in range(3):
        made = compress(codec_named(name), noise(STATISTICS, seed), residual, memory, STATISTICS)
        residual, memory = made.residual, made.memory
        head = apply_delta(head, made.decoded, STATISTICS)
        for array in (head["scatter"], residual["scatter"]):
            assert array.tobytes() == array.T.copy().tobytes()


def test_a_symmetric_delta_is_applied_to_the_bit():
    delta = noise(STATISTICS, 1, 1e-44) | {"sums": noise(STATISTICS)["sums"]}
    delta["scatter"][0, 1] = delta["scatter"][1, 0] = np.float32(3e38)
    moved = apply_delta(ZEROS, delta, STATISTICS)
    assert np.array_equal(moved["scatter"], delta["scatter"])
