"""The analytic Gaussian mechanism against Google's accounting, and against its own inverse."""

import math

import pytest
from dp_accounting import GaussianDpEvent
from dp_accounting.pld import PLDAccountant
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmedclip.edge_client.privacy.mechanism import delta_of, epsilon_of, noise_multiplier
from fedmedclip.protocol.errors import InvalidInputError

EPSILONS = st.floats(min_value=1e-3, max_value=1e3)
DELTAS = st.floats(min_value=1e-12, max_value=0.5)


@pytest.mark.parametrize("epsilon", [0.1, 0.5, 2.0, 8.0, 16.0])
@pytest.mark.parametrize("delta", [1e-3, 1e-5, 1e-8])
def test_noise_is_what_google_s_accountant_asks_for(epsilon, delta):
    accountant = PLDAccountant(value_discretization_interval=1e-3)
    accountant.compose(GaussianDpEvent(noise_multiplier(epsilon, delta)))
    assert accountant.get_epsilon(delta) == pytest.approx(epsilon, rel=2e-3)


def test_known_values():
    """Beside the classical calibration sqrt(2 ln(1.25 / delta)) / epsilon, 4.84 and 0.606."""
    assert noise_multiplier(1.0, 1e-5) == pytest.approx(3.7306316, rel=1e-6)
    assert noise_multiplier(8.0, 1e-5) == pytest.approx(0.6, rel=0.02)


@settings(max_examples=200, deadline=None)
@given(epsilon=EPSILONS, delta=DELTAS)
def test_the_inverse_and_the_guarantee_agree(epsilon, delta):
    multiplier = noise_multiplier(epsilon, delta)
    assert delta_of(multiplier, epsilon) <= delta
    assert epsilon_of(multiplier, delta) <= epsilon * (1 + 1e-6)
    # A little less noise would not do.
    assert delta_of(multiplier * (1 - 1e-4), epsilon) > delta


def test_what_no_noise_can_give_is_refused():
    for epsilon, delta in [
        (0.0, 1e-5),
        (-1.0, 1e-5),
        (math.inf, 1e-5),
        (math.nan, 1e-5),
        (1.0, 0.0),
        (1.0, 1.0),
    ]:
        with pytest.raises(InvalidInputError, match=r"(epsilon|delta) is"):
            noise_multiplier(epsilon, delta)
    with pytest.raises(InvalidInputError, match=r"noise multiplier is 0"):
        epsilon_of(0.0, 1e-5)


def test_much_noise_costs_nothing_and_little_much():
    assert epsilon_of(1e9, 1e-5) == 0.0
    assert epsilon_of(1e-3, 1e-5) > 1e5
