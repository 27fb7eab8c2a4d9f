"""Shares, masks, integers and projections, each against what it promises."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmedclip.protocol.errors import InvalidInputError, MessageError
from fedmedclip.protocol.heads.head import HeadSpecification, TensorSpecification
from fedmedclip.protocol.secure_aggregation.integers import (
    modulus_bits,
    pack,
    packed_bytes,
    reduced,
    signed,
    to_integers,
    to_values,
    unpack,
    weight_of,
)
from fedmedclip.protocol.secure_aggregation.masks import agreed, pair_masks, private_key, public_half
from fedmedclip.protocol.secure_aggregation.projection import Shared, linear_codec_named, projection_of
from fedmedclip.protocol.secure_aggregation.shamir import PRIME, combine, split, threshold_of
from fedmedclip.protocol.secure_aggregation.shares import PeerShares, open_shares, seal_shares

SECRETS = st.binary(min_size=16, max_size=16)


def test_the_prime_is_prime():
    """By Fermat with many bases; 2**130 - 5 is that of Poly1305."""
    assert all(pow(base, PRIME - 1, PRIME) == 1 for base in (2, 3, 5, 7, 11, 13, 1 << 64, PRIME - 2))


@given(SECRETS, st.integers(1, 12), st.data())
def test_as_many_shares_as_the_threshold_give_the_secret_back(secret, holders, data):
    threshold = data.draw(st.integers(1, holders))
    shares = split(secret, threshold, holders)
    chosen = data.draw(st.lists(st.integers(1, holders), min_size=threshold, unique=True))
    assert combine({holder: shares[holder - 1] for holder in chosen}) == secret


@given(SECRETS, SECRETS, st.integers(2, 9))
def test_fewer_shares_are_shares_of_any_other_secret_too(secret, other, threshold):
    """For what one less than the threshold holds there is a polynomial through every secret."""
    shares = split(secret, threshold, threshold)
    held = {holder: int.from_bytes(shares[holder - 1], "big") for holder in range(1, threshold)}
    points = {0: int.from_bytes(other, "big"), **held}
    last = interpolated(points, threshold)
    completed = {holder: value.to_bytes(17, "big") for holder, value in held.items()}
    assert combine(completed | {threshold: last.to_bytes(17, "big")}) == other


def interpolated(points, at):
    total = 0
    for x, y in points.items():
        term = y
        for other in points:
            if other != x:
                term = term * (at - other) * pow(x - other, -1, PRIME) % PRIME
        total += term
    return total % PRIME


@given(st.dictionaries(st.integers(1, 50), st.binary(min_size=17, max_size=17), min_size=1, max_size=8))
def test_hostile_shares_give_a_secret_or_none(shares):
    found = combine(shares)
    assert found is None or len(found) == 16


@given(st.integers(3, 1000))
def test_two_lists_of_survivors_never_both_have_enough(participants):
    """Although any sites fewer than a third sign both, and a third of them may be away."""
    threshold = threshold_of(participants)
    hostile = 2 * threshold - participants - 1
    assert 2 * (threshold - hostile) > participants - hostile
    assert participants - threshold == participants // 3


@given(st.integers(1, 32), st.lists(st.integers(0, (1 << 32) - 1), max_size=40))
def test_what_is_packed_comes_out_again(bits, values):
    words = np.array(values, np.uint32) & np.uint32((1 << bits) - 1)
    data = pack(words, bits)
    assert len(data) == packed_bytes(len(words), bits)
    np.testing.assert_array_equal(unpack(data, len(words), bits), words)
    with pytest.raises(MessageError, match="a masked vector has"):
        unpack(data + b"\0", len(words), bits)


@given(st.integers(4, 22), st.integers(3, 40), st.data())
def test_the_sum_of_the_largest_integers_fits_the_modulus(bits, sites, data):
    most = (1 << (bits - 1)) - 1
    each = data.draw(st.lists(st.integers(-most, most), min_size=sites, max_size=sites))
    each[0] = data.draw(st.sampled_from([most, -most]))
    modulus = modulus_bits(bits, sites)
    total = sum(reduced(np.array([value]), modulus).astype(np.int64) for value in each)
    assert signed(reduced(total, modulus), modulus)[0] == sum(each)
    assert signed(reduced(np.array([most * sites]), modulus), modulus)[0] == most * sites


@settings(deadline=None)
@given(st.integers(3, 6), st.integers(1, 30))
def test_the_masks_of_all_pairs_cancel(sites, bits):
    keys = [private_key(bytes([index] * 16), "mask key") for index in range(sites)]
    public = [(index, public_half(key)) for index, key in enumerate(keys)]
    total = np.zeros(7, np.uint32)
    for index, key in enumerate(keys):
        total += pair_masks(index, key, [p for p in public if p[0] != index], b"try", 7, bits)
    assert not (total & np.uint32((1 << bits) - 1)).any()


def test_a_share_opens_for_its_receiver_in_its_direction_and_try_only():
    a, b, c = (private_key(bytes([value] * 16), "cipher key") for value in (1, 2, 3))
    shares = PeerShares(bytes(range(17)), bytes(range(17, 34)))
    sealed = seal_shares(shares, a, public_half(b), (0, 1), b"try")
    assert open_shares(sealed, b, public_half(a), (0, 1), b"try") == shares
    for key, peer, direction, context in (
        (c, public_half(a), (0, 1), b"try"),
        (b, public_half(c), (0, 1), b"try"),
        (b, public_half(a), (1, 0), b"try"),
        (b, public_half(a), (0, 1), b"other"),
    ):
        with pytest.raises(MessageError, match="not sealed for this site"):
            open_shares(sealed, key, peer, direction, context)
    with pytest.raises(MessageError, match="no public key"):
        agreed(a, bytes(32))


SPECIFICATION = HeadSpecification(
    (
        TensorSpecification("matrix", (20, 12)),
        TensorSpecification("scatter", (16, 16)),
        TensorSpecification("vector", (9,)),
        TensorSpecification("measured", (30, 30), measured=True),
        TensorSpecification("scalar", ()),
    )
)


def arrays(seed):
    generator = np.random.default_rng(seed)
    found = {
        tensor.name: generator.standard_normal(tensor.shape).astype(np.float32)
        for tensor in SPECIFICATION.tensors
    }
    found["scatter"] += found["scatter"].T.copy()
    found["scalar"] = np.float32(found["scalar"]).reshape(())
    return found


@pytest.mark.parametrize("name", ["dense", "subspace:rank=2,directions=3"])
@pytest.mark.parametrize("round_number", [1, 2])
def test_a_projection_is_linear_and_leaves_out_what_is_orthogonal(name, round_number):
    shared = Shared(round_number, 7, arrays(0), arrays(1))
    projection = projection_of(linear_codec_named(name), SPECIFICATION, shared)
    first, second = arrays(2), arrays(3)
    total = {key: first[key] + 2 * second[key] for key in first}
    np.testing.assert_allclose(
        projection.apply(total), projection.apply(first) + 2 * projection.apply(second), atol=1e-5
    )
    lifted = projection.lift(projection.apply(first))
    SPECIFICATION.check(lifted)
    # Once more leaves out nothing more, and what is left out is no longer than what there was.
    again = projection.lift(projection.apply(lifted))
    for key, array in lifted.items():
        np.testing.assert_allclose(again[key], array, atol=1e-5)
        assert np.linalg.norm(first[key] - array) <= np.linalg.norm(first[key])
    for key in ("vector", "measured", "scalar"):
        np.testing.assert_array_equal(lifted[key], first[key])
    if name == "dense":
        np.testing.assert_allclose(lifted["scatter"], first["scatter"], atol=1e-6)
    else:
        assert projection.sizes == (40 if round_number == 1 else 24, 48, 9, 900, 1)


def test_alternate_rounds_find_the_subspace_of_a_matrix_that_stays_the_same():
    """The iteration of PowerSGD: after a few rounds nothing of a matrix of rank 2 is left out."""
    generator = np.random.default_rng(5)
    matrix = (generator.standard_normal((40, 2)) @ generator.standard_normal((2, 30))).astype(np.float32)
    specification, delta = HeadSpecification((TensorSpecification("matrix", (40, 30)),)), None
    codec, left = linear_codec_named("subspace:rank=2"), []
    for round_number in range(1, 5):
        shared = Shared(round_number, 3, {"matrix": matrix}, delta)
        projection = projection_of(codec, specification, shared)
        delta = projection.lift(projection.apply({"matrix": matrix}))
        left.append(np.linalg.norm(matrix - delta["matrix"]) / np.linalg.norm(matrix))
    assert left[0] > 0.5
    assert left[1] < 1e-5


def leading_matrix(order, rank):
    """Return a symmetric matrix (order, order) of float32, of `rank` directions that say less and less."""
    generator = np.random.default_rng(11)
    basis, _ = np.linalg.qr(generator.standard_normal((order, rank)))
    matrix = (basis * 0.5 ** np.arange(rank)) @ basis.T
    return ((matrix + matrix.T) / 2).astype(np.float32)


@pytest.mark.parametrize("name", ["scatter", "of another name"])
def test_rounds_of_error_feedback_bring_a_symmetric_matrix_whatever_the_first_directions_were(name):
    """Each round sends what is still owed, with the leading directions of what has arrived."""
    matrix = leading_matrix(48, 6)
    tensor = TensorSpecification(name, matrix.shape, symmetric=name != "scatter")
    specification, left = HeadSpecification((tensor,)), []
    head, owed = {name: np.zeros_like(matrix)}, {name: matrix}
    for round_number in range(1, 4):
        shared = Shared(round_number, 3, head)
        projection = projection_of(linear_codec_named("subspace:directions=8"), specification, shared)
        step = projection.lift(projection.apply(owed))
        np.testing.assert_array_equal(step[name], step[name].T)
        head = {name: head[name] + step[name]}
        owed = {name: owed[name] - step[name]}
        left.append(np.linalg.norm(matrix - head[name]) / np.linalg.norm(matrix))
    assert left[0] > 0.5
    assert left[1] < 0.1
    assert left[2] < 0.04
    assert projection.length == 48 * 8


@given(st.integers(0, 1000), st.sampled_from([1, 3, 8]))
def test_products_of_a_symmetric_matrix_are_lifted_linearly_and_exact_on_their_directions(seed, directions):
    specification = HeadSpecification((TensorSpecification("scatter", (16, 16)),))
    shared = Shared(1, seed, {"scatter": leading_matrix(16, 6)})
    codec = linear_codec_named(f"subspace:directions={directions}")
    projection = projection_of(codec, specification, shared)
    generator = np.random.default_rng(seed)
    first, second = generator.standard_normal((2, projection.length))
    total = projection.lift(first + 2 * second)["scatter"]
    apart = projection.lift(first)["scatter"] + 2 * projection.lift(second)["scatter"]
    np.testing.assert_allclose(total, apart, atol=1e-4)
    np.testing.assert_array_equal(total, total.T)
    matrix = generator.standard_normal((16, 16)).astype(np.float32)
    sent = projection.apply({"scatter": matrix + matrix.T})
    again = projection.apply(projection.lift(sent))
    np.testing.assert_allclose(again, sent, atol=1e-4)


def test_as_many_directions_as_take_more_numbers_than_the_triangle_send_the_triangle():
    specification = HeadSpecification((TensorSpecification("scatter", (16, 16)),))
    shared, matrix = Shared(1, 7, {"scatter": np.zeros((16, 16), np.float32)}), leading_matrix(16, 16)
    projection = projection_of(linear_codec_named("subspace:directions=9"), specification, shared)
    assert projection.length == 16 * 17 // 2
    np.testing.assert_array_equal(projection.lift(projection.apply({"scatter": matrix}))["scatter"], matrix)


def test_the_directions_of_a_symmetric_matrix_begin_with_those_that_are_given():
    specification = HeadSpecification((TensorSpecification("scatter", (16, 16)),))
    start = np.eye(16, dtype=np.float32)[:2]
    shared = Shared(1, 7, {"scatter": np.zeros((16, 16), np.float32)}, None, start)
    projection = projection_of(linear_codec_named("subspace:directions=2"), specification, shared)
    wanted = np.zeros((16, 16), np.float32)
    wanted[:2, :2] = [[3, 1], [1, 2]]
    np.testing.assert_allclose(projection.lift(projection.apply({"scatter": wanted}))["scatter"], wanted)


@given(st.integers(1, 10_000), st.integers(1, 10_000), st.integers(4, 22))
def test_weights_follow_the_images_up_to_the_most_that_count(samples, most, bits):
    largest = (1 << (bits - 1)) - 1
    weight = weight_of(samples, most, bits)
    assert 1 <= weight <= largest
    assert abs(weight - max(1, largest * min(samples, most) / most)) <= 0.5


def test_rounding_is_to_the_nearest_step_of_the_bound():
    values, bounds = np.array([0.1, -0.9, 5.0]), np.array([0.5, 1.0, 1.0])
    integers = to_integers(values, bounds, 100)
    np.testing.assert_array_equal(integers, [20, -90, 100])
    np.testing.assert_allclose(to_values(integers, bounds, 100), [0.1, -0.9, 1.0])


@pytest.mark.parametrize(
    ("name", "said"),
    [("subspaces", "did you mean"), ("dense:rank=3", "no parameter"), ("subspace:rank=0", "rank is")],
)
def test_a_codec_that_is_not_linear_or_not_known_is_refused(name, said):
    with pytest.raises(InvalidInputError, match=said):
        linear_codec_named(name)
