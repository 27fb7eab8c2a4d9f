"""Rounds whose updates are summed under masks: whoever dies, is killed, repeats or lies, and in any phase."""

import msgspec
import numpy as np
import pytest

from fedmedclip.protocol.messages import (
    Anew,
    Complaint,
    Confirmation,
    Confirmations,
    MaskedUpdate,
    MaskKeys,
    MaskShares,
    Participants,
    Reveal,
    RoutedShares,
    Secure,
    Survivors,
)
from tests.simulation.federation.loopback import Loopback, play_to
from tests.simulation.federation.secure_events import SECURE, after_first, heard, lying

OF_SITES = [MaskKeys, MaskShares, MaskedUpdate, Confirmation, Reveal]
OF_ALL = [*OF_SITES, Participants, RoutedShares, Survivors, Confirmations]


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


@pytest.mark.parametrize("kind", OF_ALL)
def test_a_site_that_dies_in_whatever_phase_stops_nobody(tmp_path, kind):
    federation = Loopback(tmp_path, sites=4, rounds=2, minimum_sites=3, secure=SECURE)
    after_first(federation, kind, lambda: federation.agents.pop("site-1", None))
    federation.run()
    assert federation.coordinator.plan.rounds == 2
    assert federation.final_digest()


@pytest.mark.parametrize("kind", OF_ALL)
@pytest.mark.parametrize("victim", ["aggregator", "site-1"])
@pytest.mark.parametrize("skip", [0, 2])
def test_whoever_is_started_again_in_whatever_phase_goes_on(tmp_path, kind, victim, skip):
    federation = Loopback(tmp_path, sites=3, rounds=2, secure=SECURE)
    after_first(federation, kind, lambda: federation.kill(victim), skip)
    federation.run()
    assert federation.final_digest()


def test_with_too_few_left_nothing_is_unmasked_and_the_round_begins_anew(tmp_path):
    federation = Loopback(tmp_path, sites=4, rounds=1, minimum_sites=3, secure=SECURE)
    letters, gone = heard(federation), {}

    def two_go():
        for site in ("site-2", "site-3"):
            gone[site] = federation.agents.pop(site)

    after_first(federation, MaskedUpdate, two_go, skip=1)
    for _ in range(400):
        federation.step()
    said = [type(message) for _, _, message in letters]
    assert Anew in said
    assert Reveal not in said
    assert federation.coordinator.global_head.version == 0
    federation.agents |= gone
    federation.run()
    assert federation.final_digest()


def test_a_site_that_fell_away_still_owes_its_change_and_the_others_do_not(tmp_path):
    federation = Loopback(tmp_path, sites=4, rounds=2, minimum_sites=3, secure=SECURE)
    kept = {}
    after_first(federation, MaskShares, lambda: kept.update(gone=federation.agents.pop("site-3")), skip=3)
    play_to(federation, 1)
    assert [federation.store.last_round(f"site-{i}") for i in range(4)] == [1, 1, 1, 0]
    federation.agents["site-3"] = kept["gone"]
    federation.agents["site-3"].connected()
    federation.run()
    assert federation.final_digest()
    assert federation.states["site-3"].load().trained_round == 2


def test_shares_that_cannot_be_used_leave_out_who_made_them_and_who_says_so(tmp_path, caplog):
    federation = Loopback(tmp_path, sites=5, rounds=2, minimum_sites=3, secure=SECURE)

    def spoilt(message):
        shares = [*message.shares]
        shares[2] = msgspec.structs.replace(shares[2], sealed=bytes(50))
        return msgspec.structs.replace(message, shares=shares)

    lying(federation, "site-4", MaskShares, spoilt)
    letters = heard(federation)
    play_to(federation, 1)
    assert any(isinstance(message, Complaint) for _, _, message in letters)
    assert [federation.store.last_round(f"site-{i}") for i in range(5)] == [1, 1, 0, 1, 0]
    assert "site-4 is left out: site-2 cannot use the shares that it made" in caplog.text
    federation.run()
    assert federation.final_digest()


def test_who_shares_what_is_not_of_its_keys_is_put_in_quarantine(tmp_path):
    federation = Loopback(tmp_path, sites=4, rounds=2, minimum_sites=3, secure=SECURE)
    lying(
        federation,
        "site-3",
        MaskShares,
        lambda message: msgspec.structs.replace(message, seed_commitment=bytes(16)),
    )
    while federation.coordinator.global_head.version < 2:
        federation.step()
    assert "not of its keys" in federation.coordinator.quarantined["site-3"].reason
    assert federation.store.last_round("site-3") == 0
    assert federation.store.last_round("site-0") == 2


@pytest.mark.parametrize(
    ("kind", "lie"),
    [
        (MaskShares, lambda m: msgspec.structs.replace(m, shares=m.shares[:-1])),
        (MaskedUpdate, lambda m: msgspec.structs.replace(m, payload=m.payload[:-1])),
        (Confirmation, lambda m: msgspec.structs.replace(m, survivors=m.survivors[:-1])),
        (Reveal, lambda m: msgspec.structs.replace(m, shares=[bytes(17) for _ in m.shares])),
        (Reveal, lambda m: msgspec.structs.replace(m, shares=m.shares[1:])),
        (MaskKeys, lambda m: msgspec.structs.replace(m, mask_key=bytes(32))),
    ],
)
def test_a_member_that_lies_is_left_out_and_named(tmp_path, kind, lie, caplog):
    federation = Loopback(
        tmp_path, sites=4, rounds=2, minimum_sites=3, secure=SECURE, round_timeout_seconds=200.0
    )
    lying(federation, "site-0", kind, lie)
    play_to(federation, 2)
    assert federation.coordinator.plan.rounds == 2
    # A false share is looked at only where it comes before enough others.
    assert kind is Reveal or "site-0 is left out" in caplog.text
    assert federation.coordinator.global_head.digest == federation.learners["site-1"].digests[2]


def test_what_was_said_in_one_try_says_nothing_in_another(tmp_path):
    """Whoever says everything again, in every later round, changes nothing."""
    federation = Loopback(tmp_path, sites=3, rounds=3, secure=SECURE)
    letters, receive = [], federation.coordinator.receive

    def overhearing(topic, payload, now):
        letters.append((topic, payload))
        return receive(topic, payload, now)

    federation.coordinator.receive = overhearing
    play_to(federation, 1)
    federation.coordinator.receive = receive
    for topic, payload in letters:
        receive(topic, payload, federation.now)
    federation.run()
    assert federation.final_digest()
    assert federation.coordinator.plan.rounds == 3
