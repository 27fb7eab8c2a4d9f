import numpy as np
import pytest

from fedmedclip.protocol.codecs import codec_named, decode_head, delta_codec_named, encode_head
from fedmedclip.protocol.codecs.error_feedback import (
    apply_delta,
    change_to_send,
    compress,
    compress_within,
    difference,
    norm_of,
    require_carrying_codec,
    what_to_send,
)
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.heads.head import HeadSpecification, TensorSpecification, head_digest

SPECIFICATION = HeadSpecification((TensorSpecification("weight", (8, 16), initial_bound=1.0),))


@pytest.mark.parametrize(
    "name", ["int8", "int2", "sign", "topk:share=0.05", "lowrank:rank=2", "auto:bytes=256"]
)
def test_what_a_codec_leaves_out_arrives_in_later_rounds(name):
    generator = np.random.default_rng(3)
    codec, residual, memory = codec_named(name), None, b""
    truth = np.zeros((8, 16))
    with_feedback = {"weight": np.zeros((8, 16), np.float32)}
    without = np.zeros((8, 16))
    for _ in range(60):
        delta = {"weight": (0.1 * generator.standard_normal((8, 16))).astype(np.float32)}
        delta["weight"][0, 0] = 1.0
        # A steady drift in one place, small beside the rest: what is left out of it each time adds up.
        delta["weight"][3] = 0.05
        truth += delta["weight"]
        without += compress(codec, delta, None, b"", SPECIFICATION).decoded["weight"]
        compressed = compress(codec, delta, residual, memory, SPECIFICATION)
        residual, memory = compressed.residual, compressed.memory
        with_feedback = apply_delta(
            with_feedback, decode_head(compressed.encoded, SPECIFICATION), SPECIFICATION
        )
    errors = [np.square(found - truth).sum() for found in (with_feedback["weight"], without)]
    assert errors[0] < 0.3 * errors[1]
    np.testing.assert_allclose(with_feedback["weight"] + residual["weight"], truth, atol=1e-4)


def test_a_lossless_codec_leaves_nothing_out():
    head = SPECIFICATION.initial(5)
    compressed = compress(codec_named("lossless"), head, None, b"", SPECIFICATION)
    assert not any(array.any() for array in compressed.residual.values())
    assert head_digest(compressed.decoded) == head_digest(head)


def test_apply_undoes_difference():
    old, new = SPECIFICATION.initial(1), SPECIFICATION.initial(2)
    moved = apply_delta(old, difference(new, old), SPECIFICATION)
    np.testing.assert_allclose(moved["weight"], new["weight"], atol=1e-7)


@pytest.mark.parametrize("name", ["sign", "int2", "topk", "lowrank:rank=1"])
def test_a_running_variance_never_becomes_negative(name):
    specification = HeadSpecification(
        (
            TensorSpecification("weight", (8, 4), initial_bound=1.0),
            TensorSpecification("running_var", (8,), initial_value=1.0, lowest=0.0),
        )
    )
    head = specification.initial(1)
    head["running_var"] = np.linspace(0.0, 0.02, 8, dtype=np.float32)
    target = {"weight": head["weight"] + np.float32(1), "running_var": head["running_var"] / 2}
    residual, lowest = None, []
    for _ in range(20):
        delta = difference(target, head)
        compressed = compress(codec_named(name), delta, residual, b"", specification)
        residual = compressed.residual
        lowest.append((head["running_var"] + compressed.decoded["running_var"]).min())
        head = apply_delta(head, compressed.decoded, specification)
        assert (head["running_var"] >= 0).all()
    assert name == "topk" or min(lowest) < 0


def test_arrays_that_are_measured_anew_keep_no_residual():
    specification = HeadSpecification((TensorSpecification("running_mean", (40,), measured=True),))
    delta = {"running_mean": np.random.default_rng(0).normal(size=40).astype(np.float32)}
    found = compress(delta_codec_named("int4"), delta, None, b"", specification)
    assert (found.decoded["running_mean"] != delta["running_mean"]).any()
    assert not found.residual["running_mean"].any()


def random_weights(seed):
    return {"weight": np.random.default_rng(seed).standard_normal((8, 16)).astype(np.float32)}


@pytest.mark.parametrize("name", ["lowrank:rank=2,carry=0.25", "auto:bytes=256,carry=0.25"])
def test_a_codec_that_carries_a_share_owes_no_more_of_the_round_before(name):
    delta, residual = random_weights(1), random_weights(2)
    found = compress(codec_named(name), delta, residual, b"", SPECIFICATION)
    wanted = delta["weight"] + np.float32(0.25) * residual["weight"]
    np.testing.assert_allclose(found.decoded["weight"] + found.residual["weight"], wanted, atol=1e-6)


def test_all_that_is_owed_is_wanted_where_nothing_new_was_learnt():
    nothing, residual = {"weight": np.zeros((8, 16), np.float32)}, random_weights(2)
    found = compress(codec_named("lowrank:carry=0"), nothing, residual, b"", SPECIFICATION)
    total = found.decoded["weight"] + found.residual["weight"]
    np.testing.assert_allclose(total, residual["weight"], atol=1e-6)


def test_the_default_owes_everything():
    assert [codec_named(name).carry for name in ("lowrank", "auto:bytes=1460", "topk", "int4")] == [1.0] * 4


@pytest.mark.parametrize("value", ["1.5", "-0.1", "much"])
def test_a_share_beyond_nothing_and_all_is_refused(value):
    with pytest.raises(InvalidInputError, match=r"carry is .* from 0 to 1"):
        codec_named(f"lowrank:carry={value}")


def test_statistics_must_arrive_whole():
    require_carrying_codec("fedmedclip", "lowrank:carry=0.5")
    require_carrying_codec("whitened-memory", "lowrank")
    with pytest.raises(InvalidInputError, match="sends its statistics once; leave carry out"):
        require_carrying_codec("whitened-memory", "lowrank:carry=0.5")


def one_value(value):
    return {"weight": np.full((1, 1), value, np.float32)}


ONE_VALUE = HeadSpecification((TensorSpecification("weight", (1, 1)),))
LOSSLESS = codec_named("lossless")


def test_a_change_within_the_limit_is_sent_as_it_is():
    for value in (3.0, -3.0, 0.0):
        made = compress_within(3.0, LOSSLESS, one_value(value), None, b"", ONE_VALUE)
        assert made.decoded["weight"].item() == value
    made = compress_within(3.0, LOSSLESS, one_value(2.0), one_value(1.0), b"", ONE_VALUE)
    assert made.decoded["weight"].item() == 3.0


@pytest.mark.parametrize(("delta", "residual"), [(40.0, None), (40.0, 10.0), (-1.0, -200.0)])
def test_a_change_beyond_the_limit_is_cut_to_it_and_the_rest_is_not_owed(delta, residual):
    owed = None if residual is None else one_value(residual)
    made = compress_within(3.0, LOSSLESS, one_value(delta), owed, b"", ONE_VALUE)
    assert 2.5 < abs(made.decoded["weight"].item()) <= 3.0
    assert np.sign(made.decoded["weight"].item()) == np.sign(delta)
    assert made.residual["weight"].item() == 0.0


@pytest.mark.parametrize("name", ["int2", "sign", "topk:share=0.05", "lowrank:rank=1", "int8"])
def test_whatever_the_codec_a_receiver_decodes_no_more_than_the_limit(name):
    delta = {"weight": np.float32(50) * SPECIFICATION.initial(3)["weight"]}
    residual = {"weight": np.float32(9) * SPECIFICATION.initial(4)["weight"]}
    made = compress_within(1.0, codec_named(name), delta, residual, b"", SPECIFICATION)
    assert 0.1 < norm_of(made.decoded) <= 1.0


def test_the_norm_is_that_of_all_values_together():
    assert norm_of({"a": np.float32([3.0, 0.0]), "b": np.float32([[-4.0]])}) == 5.0


def test_what_is_left_out_is_said_as_a_share_of_what_was_to_be_sent():
    delta, residual = SPECIFICATION.initial(1), SPECIFICATION.initial(2)
    made = compress(codec_named("int2"), delta, residual, b"", SPECIFICATION)
    wanted = {"weight": delta["weight"] + residual["weight"]}
    assert made.delta_norm == pytest.approx(norm_of(delta), rel=1e-3)
    assert made.wanted_norm == pytest.approx(norm_of(wanted), rel=1e-3)
    assert made.left_out_norm == pytest.approx(norm_of(made.residual), rel=1e-3)
    assert made.residual_share == pytest.approx(norm_of(made.residual) / norm_of(wanted), rel=1e-3)


@pytest.mark.parametrize("name", ["int2", "sign", "topk", "lowrank", "int8"])
def test_nothing_to_send_leaves_nothing_out_and_worries_nobody(name, caplog):
    codec, zeros = codec_named(name), {"weight": np.zeros((8, 16), np.float32)}
    made = compress(codec, zeros, None, b"", SPECIFICATION)
    assert made.residual_share == 0.0
    assert made.encoded == encode_head(codec, zeros, SPECIFICATION).data
    assert caplog.text == ""


def test_statistics_are_sent_once_and_then_only_what_is_still_owed():
    trained, head = one_value(5.0), one_value(2.0)
    once = HeadSpecification((TensorSpecification("weight", ()),))
    anew = HeadSpecification((TensorSpecification("weight", (), measured=True),))
    for residual in (None, one_value(1.0)):
        assert change_to_send("fedmedclip", trained, head, residual, once)["weight"] == 3.0
        assert change_to_send("whitened-memory", trained, head, residual, anew)["weight"] == 3.0
    assert change_to_send("whitened-memory", trained, head, None, once)["weight"] == 3.0
    assert change_to_send("whitened-memory", trained, head, one_value(1.0), once)["weight"] == 0.0


def test_statistics_owed_are_carried_whole_beside_what_is_measured_anew():
    """Whatever the codec forgets of a residual where there is something new to send."""
    codec = codec_named("lowrank:carry=0.5")
    delta = {"statistics": np.zeros(2, np.float32), "measured": np.ones(2, np.float32)}
    residual = {"statistics": np.full(2, 4, np.float32), "measured": np.full(2, 4, np.float32)}
    wanted = what_to_send(codec, delta, residual)
    np.testing.assert_array_equal(wanted["statistics"], 4)
    np.testing.assert_array_equal(wanted["measured"], 3)
