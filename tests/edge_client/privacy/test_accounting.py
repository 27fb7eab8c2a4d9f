"""What several releases cost together, against Google's accounting; the noise; who counts."""

import sys

import numpy as np
import pytest
from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
from dp_accounting.pld import PLDAccountant
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmedclip.edge_client.privacy.accounting import (
    GaussianSteps,
    epsilon_spent,
    noise_of_one_among,
    noise_of_steps,
)
from fedmedclip.edge_client.privacy.mechanism import noise_multiplier
from fedmedclip.edge_client.privacy.noise import SecretNoise, new_secret, release_key
from fedmedclip.edge_client.privacy.units import protected_units
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.messages import PrivacyTerms
from fedmedclip.protocol.privacy import PrivacySettings, stricter

DELTA = 1e-5


def test_plain_releases_compose_exactly_and_need_no_accountant(monkeypatch):
    releases = [GaussianSteps(noise_of_one_among(4.0, DELTA, 5))] * 5
    accountant = PLDAccountant()
    accountant.compose(GaussianDpEvent(releases[0].noise_multiplier), 5)
    assert accountant.get_epsilon(DELTA) == pytest.approx(4.0, rel=1e-3)
    monkeypatch.setitem(sys.modules, "dp_accounting", None)
    assert epsilon_spent(releases, DELTA) == pytest.approx(4.0, rel=1e-9)
    assert epsilon_spent(releases[:1], DELTA) < 2.0
    assert epsilon_spent([], DELTA) == 0.0


def test_sampled_steps_cost_what_google_s_accountant_says():
    releases = [GaussianSteps(4.0), GaussianSteps(1.5, 0.2, 10), GaussianSteps(1.5, 0.2, 20)]
    accountant = PLDAccountant()
    accountant.compose(GaussianDpEvent(4.0)).compose(PoissonSampledDpEvent(0.2, GaussianDpEvent(1.5)), 30)
    assert epsilon_spent(releases, DELTA) == pytest.approx(accountant.get_epsilon(DELTA), rel=1e-3)
    # The order does not matter, to the last bit.
    assert epsilon_spent(releases[::-1], DELTA) == epsilon_spent(releases, DELTA)


def test_the_noise_of_steps_fits_the_budget_and_wastes_little():
    count = GaussianSteps(4 * noise_multiplier(8.0, DELTA))
    noise = noise_of_steps(8.0, DELTA, 0.25, 120, (count,))
    spent = epsilon_spent((count, GaussianSteps(noise, 0.25, 120)), DELTA)
    assert 7.9 < spent <= 8.0
    with pytest.raises(InvalidInputError, match="leaves nothing"):
        noise_of_steps(1.0, DELTA, 0.25, 10, (GaussianSteps(0.5),))


def test_noise_is_the_same_under_its_key_and_normal():
    secret = new_secret()
    keys = [release_key(secret, b"ab", b"c"), release_key(secret, b"a", b"bc")]
    assert keys[0] != keys[1], "parts do not run together"
    first, again, other = (SecretNoise(key).standard_normal((50, 400)) for key in (keys[0], *keys))
    assert np.array_equal(first, again)
    assert not np.allclose(first, other)
    assert abs(first.mean()) < 0.03
    assert first.std() == pytest.approx(1.0, abs=0.02)
    assert (np.abs(first) < 1.959964).mean() == pytest.approx(0.95, abs=0.01)
    assert abs((first[:25] * other[25:]).mean()) < 0.03
    uniform = SecretNoise(keys[0]).random(10_000)
    assert 0 < uniform.min() < uniform.max() < 1
    assert uniform.mean() == pytest.approx(0.5, abs=0.02)


def test_an_image_is_its_own_unit_and_a_patient_has_so_many_images():
    groups = np.array([7, 3, 7, 7, 1, 3])
    images = protected_units(groups, "image", 2)
    assert (images.rows.tolist(), images.number, images.most_images) == ([0, 1, 2, 3, 4, 5], 6, 1)
    patients = protected_units(groups, "patient", 2)
    assert patients.rows.tolist() == [0, 1, 2, 4, 5]
    assert patients.members.tolist() == [2, 1, 2, 0, 1]
    assert (patients.number, patients.most_images) == (3, 2)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 9), max_size=60), st.integers(1, 5), st.integers(0, 9))
def test_no_other_patient_decides_which_images_of_one_count(groups, cap, gone):
    every = np.array(groups, dtype=np.int64)
    kept = protected_units(every, "patient", cap).rows
    others = np.flatnonzero(every != gone)
    without = others[protected_units(every[others], "patient", cap).rows]
    assert set(kept) - set(without) <= set(np.flatnonzero(every == gone))
    assert len(set(kept) ^ set(without)) <= cap


def test_the_stricter_of_two_demands_counts():
    plan = PrivacyTerms(8.0, 1e-6, "image", 16, 4, 2.0, 0.5, 30)
    own = PrivacySettings(epsilon=2.0, delta=1e-5, unit="patient", images_per_patient=4).terms(1)
    assert stricter(plan, own) == PrivacyTerms(2.0, 1e-6, "patient", 4, 8, 2.0, 0.5, 30)
    assert stricter(None, own) == own
    assert stricter(plan, PrivacySettings().terms(1)) == plan
    assert stricter(None, None) is None
    with pytest.raises(InvalidInputError, match="epsilon is inf; give a finite number"):
        PrivacySettings(epsilon=float("inf"))
