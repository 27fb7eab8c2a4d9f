"""Rounds whose updates are summed under masks: whoever dies, is killed, repeats or lies, and in any phase."""

import msgspec
import numpy as np
import pytest

from fedmedclip.protocol.envelope import open_envelope
from fedmedclip.protocol.messages import (
    Anew,
    Complaint,
    Confirmation,
    Confirmations,
    HeadRequest,
    MaskedUpdate,
    MaskKeys,
    MaskShares,
    ObjectReference,
    Participants,
    Reveal,
    RoutedShares,
    Secure,
    Survivors,
    Update,
)
from tests.simulation.federation.loopback import Loopback, play_to
from tests.simulation.federation.secure_events import SECURE, after_first, heard, lying

QUICK_OR_SLOW = [
    MaskShares,
    Confirmations,
    *(pytest.param(kind, marks=pytest.mark.slow) for kind in (MaskKeys, MaskedUpdate, Confirmation, Reveal)),
    *(pytest.param(kind, marks=pytest.mark.slow) for kind in (Participants, RoutedShares, Survivors)),
]


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


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 12))])
def test_loss_repeats_and_kills_lead_to_the_same_head_everywhere(tmp_path, seed):
    federation = Loopback(tmp_path, sites=4, rounds=4, secure=SECURE)
    kills = 0.0 if seed % 4 == 1 else 0.02
    federation.run(loss=0.1, repeats=0.1, kills=kills, seed=seed, steps=60_000)
    assert federation.final_digest()


@pytest.mark.parametrize("kind", QUICK_OR_SLOW)
def test_a_site_that_dies_in_whatever_phase_stops_nobody(tmp_path, kind):
    federation = Loopback(tmp_path, sites=4, rounds=2, minimum_sites=3, secure=SECURE)
    after_first(federation, kind, lambda: federation.agents.pop("site-1", None))
    federation.run()
    assert federation.coordinator.plan.rounds == 2
    assert federation.final_digest()


@pytest.mark.parametrize("kind", QUICK_OR_SLOW)
@pytest.mark.parametrize("victim", ["aggregator", "site-1"])
@pytest.mark.parametrize("skip", [pytest.param(0, marks=pytest.mark.slow), 2])
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


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_vectors_that_fit_no_message_travel_in_blocks(tmp_path, seed):
    secure = Secure("dense", 8, 1000, 0.25, 3)
    federation = Loopback(tmp_path, sites=3, rounds=2, embedding_size=64, secure=secure, codec="int8")
    letters = heard(federation)
    federation.run(loss=0.1 * seed, repeats=0.1 * seed, seed=seed, steps=60_000)
    assert federation.final_digest()
    masked = [message for _, _, message in letters if isinstance(message, MaskedUpdate)]
    assert all(isinstance(message.payload, ObjectReference) for message in masked)


def test_an_aggregator_that_is_restored_from_a_backup_counts_no_update_twice(tmp_path):
    federation = Loopback(tmp_path, sites=3, rounds=6, secure=SECURE)
    play_to(federation, 1)
    federation.store.copy_to(tmp_path / "backup.db")
    play_to(federation, 4)
    federation.restore_aggregator(tmp_path / "backup.db")
    federation.run()
    assert federation.final_digest()
    assert federation.coordinator.plan.rounds == 6


def test_a_site_that_has_a_snapshot_only_asks_for_the_difference_that_the_basis_is_of(tmp_path):
    federation = Loopback(tmp_path, sites=4, rounds=4, minimum_sites=3, secure=SECURE)
    play_to(federation, 2)
    late = federation.agents["site-3"]
    late._run.follower._payload = None
    letters = heard(federation)
    play_to(federation, 3)
    assert any(isinstance(message, HeadRequest) for _, _, message in letters)
    assert federation.store.last_round("site-3") == 3
    federation.run()
    assert federation.final_digest()


def test_a_round_that_nobody_can_sum_any_more_is_skipped_and_the_run_gets_one_more(tmp_path, caplog):
    """All have shown their shares, and all are started again before the aggregator has enough of them."""
    federation = Loopback(tmp_path, sites=3, rounds=1, secure=SECURE)
    receive, lost = federation.deliver, []

    def losing(receiver, topic, payload):
        if isinstance(open_envelope(payload, topic).message, Reveal) and len(lost) < 3:
            lost.append(payload)
            if len(lost) == 3:
                for victim in ("aggregator", *federation.agents):
                    federation.kill(victim)
        else:
            receive(receiver, topic, payload)

    federation.deliver = losing
    federation.run()
    assert "round 1 is skipped" in caplog.text
    assert federation.coordinator.plan.rounds == 2
    assert federation.final_digest()
    assert {federation.store.last_round(site) for site in federation.agents} == {2}


def test_statistics_that_a_skipped_round_lost_are_still_owed(tmp_path):
    """A site gets back what it owed before: nothing of a round that counted nobody is taken for sent."""
    federation = Loopback(tmp_path, sites=3, rounds=1, secure=SECURE)
    kept = {}

    def all_again():
        for victim in ("aggregator", *federation.agents):
            federation.kill(victim)
        federation.states["site-0"].settle, kept["settle"] = settling, federation.states["site-0"].settle

    def settling(round_number, accepted, *, again=False):
        kept[round_number] = accepted
        kept["settle"](round_number, accepted, again=again)

    after_first(federation, Confirmations, all_again, skip=2)
    federation.run()
    del kept["settle"]
    assert kept == {1: False, 2: True}


def test_an_update_in_the_clear_is_refused_where_masks_are_asked_for(tmp_path, caplog):
    federation = Loopback(tmp_path, sites=3, rounds=1, secure=SECURE)
    play_to(federation, 0)
    while not federation.coordinator.rounds.members:
        federation.step()
    federation.from_site("site-0", [Update(1, 100, b"\1", 0)])
    while "this one is in the clear" not in caplog.text:
        federation.step()


def test_keys_for_masks_are_refused_where_none_are_asked_for(tmp_path, caplog):
    federation = Loopback(tmp_path, sites=2, rounds=3)
    play_to(federation, 1)
    federation.from_site("site-0", [MaskKeys(2, bytes(32), bytes(32), False)])
    federation.run()
    assert "the plan asks for no secure aggregation" in caplog.text


def test_bounds_follow_what_the_sums_are(tmp_path):
    """From a bound that is far too large the values come up within a few rounds."""
    secure = Secure("dense", 8, 1000, 1000.0, 3)
    federation = Loopback(tmp_path, sites=3, rounds=7, secure=secure)
    letters = heard(federation)
    federation.run()
    bounds = [message.bounds[0] for _, _, message in letters if isinstance(message, Participants)]
    assert bounds[0] == 1000.0
    assert 0.02 < bounds[-1] < 0.3


def test_who_is_put_in_quarantine_in_the_midst_of_a_try_is_not_in_its_sum(tmp_path):
    federation = Loopback(tmp_path, sites=4, rounds=1, minimum_sites=3, secure=SECURE)
    after_first(
        federation,
        MaskedUpdate,
        lambda: federation.from_aggregator(
            federation.coordinator.quarantine("site-2", "its camera is broken", federation.now)
        ),
        skip=2,
    )
    play_to(federation, 1)
    assert [federation.store.last_round(f"site-{i}") for i in range(4)] == [1, 1, 0, 1]
