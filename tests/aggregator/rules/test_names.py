"""Rules by name, their options, and rules of others."""

import numpy as np
import pytest

from fedmedclip.aggregator.rules import names
from fedmedclip.aggregator.rules.names import BUILT_IN, rule_for, rule_named
from fedmedclip.aggregator.rules.rule import Aggregated, Rule, in_memory
from fedmedclip.protocol.errors import AggregationError, InvalidInputError
from fedmedclip.protocol.heads.head import HeadSpecification, TensorSpecification

SPECIFICATION = HeadSpecification((TensorSpecification("weight", (2, 3)), TensorSpecification("bias", (2,))))


def constant(value):
    return {tensor.name: np.full(tensor.shape, value, np.float32) for tensor in SPECIFICATION.tensors}


ONE = [in_memory("a", 1.0, constant(1.0))]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("trimed_mean", "unknown aggregation rule 'trimed_mean'; did you mean 'trimmed_mean'"),
        ("trimmed_mean:share", "'share' is not a parameter; write for example trimmed_mean:share=0.2"),
        ("trimmed_mean:share=0.6", "rule 'trimmed_mean:share=0.6': share is '0.6', .* from 0 to 0.49"),
        ("trimmed_mean:shares=0.1", "'trimmed_mean' has no parameter shares"),
        ("krum:hostile=0", "hostile is '0', it must be from 1"),
        ("coordinate_median:weights=even", "weights is 'even', it must be one of equal, given"),
        ("weighted_mean:norm=0", "norm is '0', it must be a number"),
    ],
)
def test_a_name_that_is_none_is_one_line_with_what_to_write(name, words):
    with pytest.raises(InvalidInputError, match=words) as raised:
        rule_named(name)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_each_rule_says_whom_it_bears_what_it_needs_and_what_it_costs(name):
    said = " ".join((BUILT_IN[name].with_options.__doc__ or "").split())
    for words in ("Bears ", "Memory: ", "here all are honest", "different data"):
        assert words in said or (name, words) == ("weighted_mean", "different data"), f"{name}: {words}"


def test_methods_that_send_statistics_have_a_rule_that_adds_up():
    assert rule_for("whitened-memory", None).suits_statistics
    assert rule_for("whitened-memory", "weighted_mean").name == "weighted_mean"
    with pytest.raises(InvalidInputError, match="'krum' does not suit method 'whitened-memory'"):
        rule_for("whitened-memory", "krum")
    assert rule_for("fedmedclip", None).name == names.DEFAULT


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (lambda updates, specification: 1 / 0, "failed (ZeroDivisionError: division by zero)"),
        (lambda updates, specification: {}, "gave no delta"),
        (lambda updates, specification: constant(np.nan), "gave no delta"),
    ],
)
def test_a_rule_of_others_that_fails_is_named_with_what_to_do(monkeypatch, rule, said):
    monkeypatch.setattr(names, "load_from_outside", lambda *arguments: rule)
    with pytest.raises(AggregationError) as raised:
        rule_named("theirs")(ONE, SPECIFICATION)
    assert str(raised.value).startswith(f"aggregation rule 'theirs' {said}")
    assert "updates are kept" in str(raised.value)


def test_a_rule_of_others_may_be_a_function_of_pairs_or_one_like_ours(monkeypatch):
    def function(updates, specification):
        return constant(sum(weight * delta["bias"][0] for weight, delta in updates))

    monkeypatch.setattr(names, "load_from_outside", lambda *arguments: function)
    two = [in_memory("a", 2.0, constant(1.0)), in_memory("b", 1.0, constant(5.0))]
    assert rule_named("theirs")(two, SPECIFICATION).delta["bias"].tolist() == [7.0, 7.0]

    def with_options(name):
        times = name.take_integer("times", 1, range(1, 10))
        return lambda updates, specification, state: Aggregated(constant(times))

    monkeypatch.setattr(names, "load_from_outside", lambda *arguments: Rule(with_options))
    assert rule_named("theirs:times=3")(two, SPECIFICATION).delta["bias"].tolist() == [3.0, 3.0]
    with pytest.raises(InvalidInputError, match="'theirs' has no parameter time; did you mean"):
        rule_named("theirs:time=3")


def test_a_rule_whose_state_is_no_state_is_named(monkeypatch):
    for state in ({"kept": np.array([np.nan])}, {"kept": np.array(["text"])}, {1: np.zeros(1)}, [1]):
        rule = Rule(
            lambda name, state=state: lambda updates, specification, _: Aggregated(constant(1), state)
        )
        monkeypatch.setattr(names, "load_from_outside", lambda *arguments, rule=rule: rule)
        with pytest.raises(AggregationError, match="'theirs' keeps what cannot be kept"):
            rule_named("theirs")(ONE, SPECIFICATION)
