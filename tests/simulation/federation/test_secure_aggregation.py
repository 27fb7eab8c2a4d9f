"""Rounds whose updates are summed under masks: whoever dies, is killed, repeats or lies, and in any phase."""

import numpy as np
import pytest

from fedmedclip.protocol.messages import Secure
from tests.simulation.federation.loopback import Loopback

SECURE = Secure("subspace:rank=2", 12, 1000, 0.25, 3)


def test_three_sites_sum_a_round_under_masks(tmp_path):
    federation = Loopback(tmp_path, sites=3, rounds=3, secure=SECURE)
    federation.run()
    assert federation.final_digest()


@pytest.mark.parametrize("codec", ["dense", "subspace:rank=2"])
def test_the_sum_is_the_mean_of_what_the_sites_wanted_to_send(tmp_path, codec):
    """Up to what the projection and the rounding leave out, which each site still owes."""
    secure = Secure(codec, 16, 1000, 0.25, 3)
    federation = Loopback(tmp_path, sites=3, rounds=1, secure=secure, codec="lossless")
    wanted = {}
    for site, state in federation.states.items():
        keep = state.store_update

        def store_update(update, private, residual, memory, site=site, keep=keep):
            wanted[site] = federation.specification.from_bytes(update.payload)
            keep(update, private, residual, memory)

        state.store_update = store_update
    before = federation.coordinator.global_head.head()
    federation.run()
    weights = {site: learner.samples for site, learner in federation.learners.items()}
    for name, array in federation.coordinator.global_head.head().items():
        owed = {
            site: federation.specification.from_bytes(state.load().residual)[name]
            for site, state in federation.states.items()
        }
        sent = sum(weights[site] * (wanted[site][name] - owed[site]) for site in weights)
        np.testing.assert_allclose(array - before[name], sent / sum(weights.values()), atol=2e-4)


@pytest.mark.parametrize("seed", range(4))
def test_loss_repeats_and_kills_lead_to_the_same_head_everywhere(tmp_path, seed):
    federation = Loopback(tmp_path, sites=4, rounds=4, secure=SECURE)
    federation.run(loss=0.1, repeats=0.1, kills=0.01, seed=seed, steps=60_000)
    assert federation.final_digest()
