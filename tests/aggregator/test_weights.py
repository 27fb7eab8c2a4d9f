"""No site weighs more than it may, and false counts of samples do not take the round."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmedclip.aggregator.rules.names import DEFAULT, rule_named
from fedmedclip.aggregator.rules.rule import in_memory
from fedmedclip.aggregator.weights import capped, weights_of
from fedmedclip.protocol.heads.head import HeadSpecification, TensorSpecification

SPECIFICATION = HeadSpecification((TensorSpecification("weight", (400,)),))
COUNTS = st.dictionaries(st.text("abcdef", min_size=1, max_size=4), st.integers(1, 10**9), min_size=1)


def step_and_updates(rule, samples, **limits):
    generator = np.random.default_rng(0)
    sent = {site: {"weight": generator.standard_normal(400).astype(np.float32)} for site in sorted(samples)}
    weights = weights_of(samples, "samples", limits.pop("maximum_share", 0.5), **limits)
    updates = [in_memory(site, weights[site], delta) for site, delta in sent.items()]
    return rule_named(rule)(updates, SPECIFICATION).delta["weight"], sent


def cosine(left, right):
    return float(left @ right / np.linalg.norm(left) / np.linalg.norm(right))


def test_a_site_that_claims_a_billion_samples_does_not_take_the_round():
    samples = {"a": 100, "b": 120, "c": 90, "d": 110, "hostile": 10**9}
    step, sent = step_and_updates("weighted_mean", samples, maximum_share=1.0)
    assert cosine(step, sent["hostile"]["weight"]) > 0.999
    honest = {site: most for site, most in samples.items() if site != "hostile"} | {"hostile": 130}
    for rule, limits, most in (
        ("weighted_mean", {}, 0.91),
        (DEFAULT, {}, 0.85),
        ("weighted_mean", {"most_samples": honest.get}, 0.6),
        (DEFAULT, {"most_samples": honest.get}, 0.6),
    ):
        step, sent = step_and_updates(rule, samples, **limits)
        assert cosine(step, sent["hostile"]["weight"]) < most
        others = sum(sent[site]["weight"] for site in "abcd")
        assert cosine(step, others) > 0.4


def test_the_default_gives_a_false_count_no_more_than_two_usual_sites():
    step, sent = step_and_updates(DEFAULT, {"a": 100, "b": 100, "c": 100, "d": 100, "hostile": 10**9})
    share = step @ sent["hostile"]["weight"] / np.linalg.norm(sent["hostile"]["weight"]) ** 2
    assert share == pytest.approx(2 / 6, abs=0.1)


@given(COUNTS, st.floats(0.01, 1.0))
def test_with_three_or_more_no_share_is_above_the_cap_and_the_order_stays(samples, cap):
    weights = weights_of(samples, "samples", cap)
    total = sum(weights.values())
    if len(samples) < 3:
        assert weights == {site: float(count) for site, count in samples.items()}
        return
    assert max(weights.values()) / total <= max(cap, 1 / len(samples)) * (1 + 1e-9)
    for one in samples:
        for other in samples:
            assert samples[one] > samples[other] or weights[one] <= weights[other]


@given(COUNTS)
def test_weights_below_the_cap_keep_their_bits(samples):
    weights = weights_of(samples, "samples", 1.0)
    assert weights == {site: float(count) for site, count in samples.items()}
    assert weights_of(dict(reversed(samples.items())), "samples", 0.3) == weights_of(samples, "samples", 0.3)


def test_water_filling_lowers_as_many_as_it_must():
    assert capped({"a": 60.0, "b": 20.0, "c": 20.0}, 0.5) == {"a": 40.0, "b": 20.0, "c": 20.0}
    two = capped({"a": 500.0, "b": 400.0, "c": 50.0, "d": 50.0}, 0.3)
    assert two == {"a": pytest.approx(75.0), "b": pytest.approx(75.0), "c": 50.0, "d": 50.0}
    assert capped({"a": 9.0, "b": 1.0, "c": 1.0}, 0.2) == {"a": 1.0, "b": 1.0, "c": 1.0}


def test_a_site_counts_for_what_was_approved_and_alike_where_all_do():
    samples = {"a": 10, "b": 1000, "c": 20}
    assert weights_of(samples, "samples", 1.0, {"b": 30}.get) == {"a": 10.0, "b": 30.0, "c": 20.0}
    assert weights_of(samples, "samples", 1.0, {"b": 0}.get)["b"] == 1.0
    assert weights_of(samples, "equal", 0.5) == {"a": 1.0, "b": 1.0, "c": 1.0}
