import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmedclip.aggregator import rules
from fedmedclip.aggregator.rules import weighted_mean
from fedmedclip.protocol.errors import AggregationError
from fedmedclip.protocol.heads.head import HeadSpecification, TensorSpecification

SPECIFICATION = HeadSpecification((TensorSpecification("weight", (2, 3)), TensorSpecification("bias", (2,))))


def constant(value):
    return {tensor.name: np.full(tensor.shape, value, np.float32) for tensor in SPECIFICATION.tensors}


def test_weights_are_shares():
    mean = weighted_mean([(3.0, constant(1.0)), (1.0, constant(5.0))], SPECIFICATION)
    assert mean["weight"].dtype == np.float32
    assert mean["weight"].tolist() == [[2.0] * 3] * 2


@given(st.lists(st.tuples(st.floats(0.1, 1e6), st.floats(-10, 10)), min_size=1, max_size=6))
def test_the_mean_lies_between_the_updates(pairs):
    mean = weighted_mean([(weight, constant(value)) for weight, value in pairs], SPECIFICATION)
    values = [value for _, value in pairs]
    assert min(values) - 1e-5 <= mean["bias"][0] <= max(values) + 1e-5


def test_no_update_is_an_error():
    with pytest.raises(ValueError, match="without updates"):
        weighted_mean([], SPECIFICATION)


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (lambda updates, specification: 1 / 0, "failed (ZeroDivisionError: division by zero)"),
        (lambda updates, specification: {}, "gave no delta"),
        (lambda updates, specification: constant(np.nan), "gave no delta"),
    ],
)
def test_a_rule_of_others_that_fails_is_named_with_what_to_do(monkeypatch, rule, said):
    monkeypatch.setattr(rules, "load_from_outside", lambda *arguments: rule)
    with pytest.raises(AggregationError) as raised:
        rules.rule_named("theirs")([(1.0, constant(1.0))], SPECIFICATION)
    assert str(raised.value).startswith(f"aggregation rule 'theirs' {said}")
    assert "updates are kept" in str(raised.value)
