"""What holds for every rule, whatever sites send."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmedclip.aggregator.rules import arithmetic
from fedmedclip.aggregator.rules.names import BUILT_IN, rule_named
from fedmedclip.aggregator.rules.rule import in_memory
from fedmedclip.aggregator.rules.weighted_mean import mean_of
from fedmedclip.protocol.heads.head import HeadSpecification, TensorSpecification, head_digest

SPECIFICATION = HeadSpecification((TensorSpecification("weight", (5, 3)), TensorSpecification("bias", (4,))))
ALL = [*sorted(BUILT_IN), "weighted_mean:norm=3", "clipped_mean:factor=2,weight=3",
       "coordinate_median:weights=given", "geometric_median:weights=given"]  # fmt: skip
# Those that a single site cannot take far, whatever it sends.
ROBUST = [name for name in ALL if name not in ("weighted_mean", "fedavgm", "fedadam", "fedyogi")]
# Those that go where all agree to go; the optimisers of the aggregator go their own way there.
AVERAGING = [name for name in ALL if name not in ("fedavgm", "fedadam", "fedyogi")]
LARGEST = 3e38


def head(seed, scale=1.0):
    generator = np.random.default_rng(seed)
    return {
        tensor.name: (scale * generator.standard_normal(tensor.shape)).astype(np.float32)
        for tensor in SPECIFICATION.tensors
    }


def constant(value):
    return {tensor.name: np.full(tensor.shape, value, np.float32) for tensor in SPECIFICATION.tensors}


def flat(delta):
    return np.concatenate([delta[tensor.name].reshape(-1) for tensor in SPECIFICATION.tensors]).astype(float)


@given(
    name=st.sampled_from(ALL),
    order=st.permutations(range(6)),
    sites=st.integers(1, 6),
    weights=st.lists(st.integers(1, 10**9), min_size=6, max_size=6),
)
@settings(max_examples=150)
def test_whatever_the_order_of_the_sites_the_bits_are_the_same(name, order, sites, weights):
    updates = [in_memory(f"site-{place}", float(weights[place]), head(place)) for place in range(sites)]
    shuffled = [updates[place] for place in order if place < sites]
    rule = rule_named(name)
    first, second = rule(updates, SPECIFICATION), rule(shuffled, SPECIFICATION)
    assert head_digest(first.delta) == head_digest(second.delta)
    assert first.remarks == second.remarks
    assert all(np.array_equal(first.state[key], second.state[key]) for key in first.state)
    again = rule(updates, SPECIFICATION, first.state)
    assert head_digest(again.delta) == head_digest(rule(shuffled, SPECIFICATION, second.state).delta)


@pytest.mark.parametrize("sites", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("name", AVERAGING)
def test_where_all_send_the_same_that_is_the_result(name, sites):
    same = head(1, 0.1)
    found = rule_named(name)(
        [in_memory(f"site-{place}", 10.0 + place, same) for place in range(sites)], SPECIFICATION
    )
    np.testing.assert_allclose(flat(found.delta), flat(same), rtol=1e-6)


@given(
    name=st.sampled_from(ROBUST),
    sites=st.integers(5, 9),
    hostile=st.integers(0, 8),
    exponent=st.floats(-30, 38),
    seed=st.integers(0, 2**32 - 1),
    samples=st.integers(1, 10**9),
)
@settings(max_examples=200)
def test_one_hostile_update_moves_the_step_no_farther_than_honest_ones_go(
    name, sites, hostile, exponent, seed, samples
):
    """Whatever its length and direction; with the weight that a cap of a half leaves it."""
    honest = [head(place, 0.1) for place in range(sites)]
    bad = {
        key: np.clip(array * 10.0**exponent, -LARGEST, LARGEST).astype(np.float32)
        for key, array in head(seed).items()
    }
    weight = float(min(samples, sites - 1)) if "given" not in name else 1.0
    updates = [in_memory(f"site-{place}", 1.0, delta) for place, delta in enumerate(honest)]
    updates[hostile % sites] = in_memory(f"site-{hostile % sites}", weight, bad)
    found = rule_named(name)(updates, SPECIFICATION)
    SPECIFICATION.check(found.delta)
    longest = max(np.linalg.norm(flat(delta)) for delta in honest)
    bound = 3.01 if "norm=3" in name else 2.5 * longest
    assert np.linalg.norm(flat(found.delta)) <= bound


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("sites", [1, 2, 3, 4])
def test_zeros_and_the_largest_values_fail_no_round(name, sites):
    rule = rule_named(name)
    largest, nothing = constant(LARGEST), constant(0)
    for deltas in ([nothing] * sites, [largest] * sites, [largest, nothing, head(1), nothing][:sites]):
        updates = [in_memory(f"site-{place}", 1.0, delta) for place, delta in enumerate(deltas)]
        with np.errstate(over="ignore"):
            found = rule(updates, SPECIFICATION)
        if name not in ("fedavgm",):
            again = rule(updates, SPECIFICATION, found.state)
            SPECIFICATION.check(again.delta)


# The limit of a mean is a number, whatever the others deliver.
@pytest.mark.parametrize("name", [name for name in ROBUST if not name.startswith("weighted_mean")])
def test_of_two_sites_neither_is_taken_for_longer_than_twice_the_other(name):
    short, long = head(1, 0.1), head(2, 1e6)
    found = rule_named(name)([in_memory("a", 1.0, short), in_memory("b", 1.0, long)], SPECIFICATION)
    assert np.linalg.norm(flat(found.delta)) <= 1.5 * np.linalg.norm(flat(short))
    assert [(remark.site, remark.fate) for remark in found.remarks] == [("b", "clipped")]


@pytest.mark.parametrize("name", ["krum", "multi_krum", "bulyan", "trimmed_mean"])
def test_who_is_far_from_all_others_is_rejected_and_named(name):
    updates = [in_memory(f"site-{place}", 1.0, head(place, 0.1)) for place in range(7)]
    far = {key: array + np.float32(100) for key, array in head(9).items()}
    updates[3] = in_memory("site-3", 1.0, far)
    found = rule_named(name)(updates, SPECIFICATION)
    assert "site-3" in {remark.site for remark in found.remarks if remark.fate == "rejected"}
    assert np.abs(flat(found.delta)).max() < 1


@pytest.mark.parametrize(
    "name", ["clipped_mean", "centred_clipping", "geometric_median", "weighted_mean:norm=3"]
)
def test_who_is_too_long_is_clipped_and_named(name):
    updates = [in_memory(f"site-{place}", 1.0, head(place, 0.1)) for place in range(5)]
    updates[2] = in_memory("site-2", 1.0, head(2, 1e3))
    remarks = {remark.site: remark for remark in rule_named(name)(updates, SPECIFICATION).remarks}
    assert remarks["site-2"].fate == "clipped"


def test_the_weighted_mean_has_the_bits_that_it_always_had():
    updates = [in_memory(f"site-{place}", 100.0 + 7 * place, head(place)) for place in range(4)]
    total = sum(update.weight for update in updates)
    for name, array in rule_named("weighted_mean")(updates, SPECIFICATION).delta.items():
        expected = np.zeros(array.shape)
        for update in updates:
            expected += update.weight * update.delta()[name].astype(np.float64)
        assert np.array_equal(array, (expected / total).astype(np.float32))
    with pytest.raises(ValueError, match="without updates"):
        mean_of([], SPECIFICATION)


def test_medians_and_trimmed_means_are_those_of_numpy():
    deltas = [head(place) for place in range(6)]
    updates = [in_memory(f"site-{place}", 1.0, delta) for place, delta in enumerate(deltas)]
    values = np.sort(np.stack([flat(delta) for delta in deltas]), axis=0)
    for name, expected in (
        ("coordinate_median", np.median(values, axis=0)),
        ("coordinate_median:weights=given", np.median(values, axis=0)),
        ("trimmed_mean:share=0.2", values[1:-1].mean(axis=0)),
        ("trimmed_mean:share=0.4", values[2:-2].mean(axis=0)),
    ):
        np.testing.assert_allclose(flat(rule_named(name)(updates, SPECIFICATION).delta), expected, atol=1e-6)


def test_a_weighted_median_has_half_of_the_weight_on_either_side():
    def one(site, weight, value):
        return in_memory(site, weight, constant(value))

    updates = [one("a", 1.0, 1.0), one("b", 1.0, 2.0), one("c", 3.0, 7.0)]
    assert set(flat(rule_named("coordinate_median:weights=given")(updates, SPECIFICATION).delta)) == {7.0}
    assert set(flat(rule_named("coordinate_median")(updates, SPECIFICATION).delta)) == {2.0}


def test_the_geometric_median_has_the_smallest_sum_of_distances():
    deltas = [head(place) for place in range(5)]
    updates = [in_memory(f"site-{place}", 1.0, delta) for place, delta in enumerate(deltas)]

    def sum_of_distances(point):
        return sum(np.linalg.norm(flat(delta) - point) for delta in deltas)

    found = flat(rule_named("geometric_median:passes=50")(updates, SPECIFICATION).delta)
    generator = np.random.default_rng(0)
    for _ in range(50):
        assert (
            sum_of_distances(found) <= sum_of_distances(found + 0.05 * generator.standard_normal(19)) + 1e-6
        )
    assert sum_of_distances(found) < sum_of_distances(np.mean([flat(delta) for delta in deltas], axis=0))


def test_krum_takes_one_update_and_bulyan_values_near_the_median():
    deltas = [head(place) for place in range(7)]
    updates = [in_memory(f"site-{place}", 1.0, delta) for place, delta in enumerate(deltas)]
    apart = np.array([[np.linalg.norm(flat(a) - flat(b)) for b in deltas] for a in deltas]) ** 2
    scores = np.sort(apart, axis=1)[:, 1:5].sum(axis=1)
    chosen = rule_named("krum")(updates, SPECIFICATION)
    np.testing.assert_array_equal(flat(chosen.delta), flat(deltas[scores.argmin()]))
    assert len(chosen.remarks) == 6
    several = rule_named("multi_krum:keep=3")(updates, SPECIFICATION)
    best = np.sort(np.argsort(scores)[:3])
    expected = np.mean([flat(deltas[place]) for place in best], axis=0)
    np.testing.assert_allclose(flat(several.delta), expected, atol=1e-6)
    middle = flat(rule_named("bulyan")(updates, SPECIFICATION).delta)
    values = np.sort(np.stack([flat(delta) for delta in deltas]), axis=0)
    assert (middle > values[0]).all()
    assert (middle < values[-1]).all()


def test_the_optimisers_follow_their_formulas():
    mean, velocity, first, second, yogi = head(1, 0.01), 0.0, 0.0, 1e-6, 1e-6
    updates, states = [in_memory("a", 1.0, mean)], {}
    delta = flat(mean)
    for _ in range(3):
        velocity = 0.9 * velocity + delta
        first = 0.9 * first + 0.1 * delta
        second = 0.99 * second + 0.01 * delta**2
        yogi = yogi - 0.01 * delta**2 * np.sign(yogi - delta**2)
        for name, expected in (
            ("fedavgm", 0.1 * velocity),
            ("fedadam", 0.003 * first / (np.sqrt(second) + 1e-3)),
            ("fedyogi", 0.003 * first / (np.sqrt(yogi) + 1e-3)),
        ):
            found = rule_named(name)(updates, SPECIFICATION, states.get(name))
            np.testing.assert_allclose(flat(found.delta), expected, rtol=1e-5, atol=1e-9)
            states[name] = found.state


def test_what_each_round_measures_anew_is_no_gradient():
    specification = HeadSpecification((TensorSpecification("variance", (3,), measured=True),))
    updates = [in_memory("a", 1.0, {"variance": np.float32([1, 2, 3])})]
    for name in ("fedavgm", "fedadam", "fedyogi"):
        assert rule_named(name)(updates, specification).delta["variance"].tolist() == [1, 2, 3]


def test_the_centre_of_the_round_before_counts():
    updates = [in_memory(f"site-{place}", 1.0, head(place)) for place in range(5)]
    rule = rule_named("centred_clipping:passes=1")
    before = rule(updates, SPECIFICATION)
    assert head_digest(before.state) == head_digest(before.delta)
    assert head_digest(rule(updates, SPECIFICATION, before.state).delta) != head_digest(before.delta)


@given(st.lists(st.floats(-1e6, 1e6), max_size=300))
def test_an_ordered_sum_is_a_sum(values):
    assert arithmetic.ordered_sum(np.array(values)) == pytest.approx(np.sum(values), abs=1e-3)


def test_updates_that_do_not_fit_into_memory_are_read_block_by_block(monkeypatch):
    updates = [in_memory(f"site-{place}", 1.0, head(place)) for place in range(5)]
    names = ("coordinate_median", "trimmed_mean", "bulyan")
    whole = [rule_named(name)(updates, SPECIFICATION).delta for name in names]
    monkeypatch.setattr(arithmetic, "_BLOCK_VALUES", 5 * 4)
    assert len(list(arithmetic.blocks(updates, SPECIFICATION))) == 5
    for name, expected in zip(names, whole, strict=True):
        assert head_digest(rule_named(name)(updates, SPECIFICATION).delta) == head_digest(expected)
