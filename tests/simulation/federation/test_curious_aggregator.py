"""An aggregator that reads everything, and asks for more than it may, learns a sum and nothing of a site."""

import dataclasses
import os
import random
import secrets
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest

from fedmedclip.edge_client.site import masking
from fedmedclip.protocol.envelope import open_envelope
from fedmedclip.protocol.messages import (
    Anew,
    Confirmation,
    Confirmations,
    MaskedUpdate,
    MaskKeys,
    MaskShares,
    Participants,
    Reveal,
    RoutedShares,
    Survivors,
)
from fedmedclip.protocol.secure_aggregation.integers import modulus_bits, reduced, unpack
from fedmedclip.protocol.signature import new_signing_key
from tests.simulation.federation.loopback import IN_ORDER, Loopback
from tests.simulation.federation.secure_events import SECURE, heard, told

FROM_SITES = (MaskKeys, MaskShares, MaskedUpdate, Confirmation, Reveal)


def until(federation, letters, kind, receiver="site-0"):
    """Play in order until a message of a kind was delivered to somebody; return the message."""
    for _ in range(2000):
        for got_by, _, message in letters:
            if got_by == receiver and isinstance(message, kind):
                return message
        federation.step(chance=IN_ORDER)
    raise AssertionError(f"no {kind.__name__} came to {receiver}")


@pytest.fixture
def played(tmp_path):
    """Return a federation of four, the letters delivered so far, and what plays to a kind of message."""
    federation = Loopback(tmp_path, sites=4, rounds=2, minimum_sites=3, secure=SECURE)
    letters = heard(federation)
    return federation, lambda kind: until(federation, letters, kind)


def test_a_second_list_of_survivors_is_not_answered(played, caplog):
    federation, play_to_kind = played
    message = play_to_kind(Survivors)
    assert message.survivors == [0, 1, 2, 3]
    assert told(federation, "site-0", message) == [Confirmation(message.try_digest, message.survivors)]
    other = msgspec.structs.replace(message, survivors=[0, 1, 2])
    assert told(federation, "site-0", other) == []
    assert "a second list of survivors, in one try: nothing is shown for it" in caplog.text


@pytest.mark.parametrize("places", [[0, 1], [1, 2, 3], [0, 1, 1], [1, 0, 2], [0, 1, 4]])
def test_a_list_of_too_few_or_without_the_site_is_not_answered(played, places):
    federation, play_to_kind = played
    routed = play_to_kind(RoutedShares)
    assert told(federation, "site-0", Survivors(routed.try_digest, places)) == []


def test_nothing_is_shown_for_a_list_that_too_few_have_signed(played, caplog):
    federation, play_to_kind = played
    message = play_to_kind(Survivors)
    key, stranger = federation.keys["site-0"], new_signing_key()
    forged = [(index, stranger.sign(bytes(64))) for index in message.survivors]
    assert told(federation, "site-0", Confirmations(message.try_digest, forged)) == []
    own = [(0, key.sign(bytes(64)))] * 4
    assert told(federation, "site-0", Confirmations(message.try_digest, own)) == []
    assert "0 survivors have signed this site's list of them, 3 must have: nothing is shown" in caplog.text
    confirmed = play_to_kind(Confirmations)
    few = Confirmations(message.try_digest, [*confirmed.signatures[:2], *confirmed.signatures[:2]])
    assert told(federation, "site-1", few) == []


def test_two_parts_cannot_be_told_two_lists(played):
    """The signatures of some under one list are none under another."""
    federation, play_to_kind = played
    play_to_kind(RoutedShares)
    attempts = {site: agent._masking for site, agent in federation.agents.items()}
    while any(each._try is None or each._try.masked is None for each in attempts.values()):
        federation.step(chance=IN_ORDER)
    federation.queue.clear()
    digest = attempts["site-0"]._try.digest
    lists = {site: [0, 1, 2] if site in ("site-0", "site-1") else [0, 1, 2, 3] for site in attempts}
    signed = {}
    for index, site in enumerate(attempts):
        federation.queue.clear()
        told(federation, site, Survivors(digest, lists[site]))
        federation.from_site(site, [Confirmation(digest, lists[site])])
        signed[index] = federation.queue.pop()[2][-64:]
    everything = Confirmations(digest, sorted(signed.items()))
    for site in attempts:
        assert told(federation, site, everything) == []


def test_a_site_that_has_shown_shares_takes_part_in_no_other_try_of_the_round(played):
    federation, play_to_kind = played
    confirmed = play_to_kind(Confirmations)
    assert [type(message) for message in told(federation, "site-0", confirmed)] == [Reveal]
    (offer,) = told(federation, "site-0", Anew(confirmed.try_digest, "as if it had failed"))
    assert offer.spent
    participants = msgspec.structs.replace(agent_participants(federation, offer), round_number=1)
    assert told(federation, "site-0", participants) == []
    federation.start_site("site-0")
    assert federation.agents["site-0"]._masking.offer(1).spent


def agent_participants(federation, offer):
    """Return the last list of participants, with new keys of the first of them."""
    attempt = federation.agents["site-1"]._masking._try
    first, *others = attempt.participants.listed
    keys = {"cipher_key": offer.cipher_key, "mask_key": offer.mask_key}
    return msgspec.structs.replace(
        attempt.participants, listed=[msgspec.structs.replace(first, **keys), *others]
    )


def test_a_site_that_is_started_again_has_nothing_to_show_of_the_try_before(played):
    federation, play_to_kind = played
    confirmed = play_to_kind(Confirmations)
    federation.start_site("site-1")
    assert told(federation, "site-1", Survivors(confirmed.try_digest, [0, 1, 2])) == []
    assert told(federation, "site-1", confirmed) == []


def test_keys_serve_one_list_of_participants_only(played):
    federation, play_to_kind = played
    participants = play_to_kind(Participants)
    other = msgspec.structs.replace(participants, listed=participants.listed[:3])
    (offer,) = told(federation, "site-0", other)
    assert isinstance(offer, MaskKeys)
    assert offer.mask_key != participants.listed[0].mask_key
    assert told(federation, "site-0", participants) == []


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (lambda p: {"listed": p.listed[:2]}, "has 2 sites, this run's sums are of at least 3"),
        (
            lambda p: {"listed": [p.listed[0], *p.listed[2:], p.listed[1]]},
            "is not sorted, or names one twice",
        ),
        (lambda p: {"bounds": p.bounds[1:]}, "has bounds for another head"),
        (
            lambda p: {
                "listed": [*p.listed[:2], msgspec.structs.replace(p.listed[2], mask_key=bytes([9] * 32))]
            },
            "site-2 is listed with keys that it has not signed",
        ),
        (
            lambda p: {"listed": [*p.listed[:2], msgspec.structs.replace(p.listed[2], public_key=None)]},
            "site-2 is listed without a key, and there is no roster here",
        ),
    ],
)
def test_a_list_of_participants_that_cannot_be_trusted_is_refused(tmp_path, changed, said, caplog):
    federation = Loopback(tmp_path, sites=4, rounds=1, minimum_sites=3, secure=SECURE)
    deliver, refused = federation.deliver, []

    def tampering(receiver, topic, payload):
        message = open_envelope(payload, topic).message
        if receiver == "site-0" and isinstance(message, Participants) and not refused:
            refused.append(told(federation, "site-0", msgspec.structs.replace(message, **changed(message))))
        else:
            deliver(receiver, topic, payload)

    federation.deliver = tampering
    while not refused:
        federation.step()
    assert refused == [[]]
    assert said in caplog.text


def test_with_a_roster_only_its_members_are_listed_under_the_keys_that_it_has(played, caplog):
    federation, play_to_kind = played
    federation.agents["site-0"]._masking._key_of = lambda site: federation.keys["site-0"].public_key
    play_to_kind(Participants)
    assert "site-1 is listed with keys that it has not signed" in caplog.text
    federation.agents["site-3"]._masking._key_of = lambda site: None
    while "site-0 is listed, but is no member by the roster" not in caplog.text:
        federation.step(chance=IN_ORDER)


@pytest.mark.parametrize("lost", [None, "site-3"])
def test_two_rounds_whose_sums_are_equal_look_alike_to_the_last_byte(tmp_path, monkeypatch, lost):
    """For each transcript of a round there is one mask of the two sites under which any other two changes of
    the same sum give the very same bytes. Nobody but the two knows that mask (it is a keystream of what their
    keys agree on), so what the aggregator reads says nothing of how the sum is made up. Also where another
    site falls away, whose key it then learns.
    """
    shift = np.array([3, -5, 7, 11], np.int64)
    sites = {f"site-{index}": new_signing_key() for index in range(4)}
    keys = SimpleNamespace(aggregator_key=new_signing_key(), keys=sites)
    first = transcript(tmp_path / "first", monkeypatch, keys, np.zeros(4, np.int64), lost)
    second = transcript(tmp_path / "second", monkeypatch, keys, shift, lost)
    assert {type(message) for _, message in first} == set(FROM_SITES)
    assert first == second
    naive = transcript(tmp_path / "third", monkeypatch, keys, shift, lost, same_mask=True)
    assert naive != second


def transcript(folder, monkeypatch, keys, shift, lost, *, same_mask=False):
    """Return what the sites send in a round in which one site's integers are `shift` above its own, and
    another's as much below, with the mask that they share moved by that.
    """
    folder.mkdir()
    draws = random.Random(1)
    change_of, pair_masks = masking.masked_change, masking.pair_masks

    def moved(values, by):
        values = values.copy()
        values[: len(shift)] += by
        return values

    with monkeypatch.context() as patch:
        patch.setattr(os, "urandom", draws.randbytes)
        patch.setattr(secrets, "token_bytes", draws.randbytes)
        patch.setattr(secrets, "randbelow", draws.randrange)
        federation = Loopback(folder, sites=4, rounds=1, minimum_sites=3, secure=SECURE, keys_of=keys)

        def shifted_change(plan, specification, update, *rest):
            change = change_of(plan, specification, update, *rest)
            by = {100: shift, 150: -shift}.get(update.samples, 0 * shift)
            return dataclasses.replace(change, integers=moved(change.integers, by))

        def shifted_masks(index, own, others, context, length, bits):
            total = pair_masks(index, own, others, context, length, bits)
            by = {0: -shift, 1: shift}.get(index, 0 * shift) * (not same_mask)
            return reduced(moved(total.astype(np.int64), by), bits)

        patch.setattr(masking, "masked_change", shifted_change)
        patch.setattr(masking, "pair_masks", shifted_masks)
        letters = heard(federation)
        until(federation, letters, Participants)
        if lost:
            until(federation, letters, RoutedShares)
            del federation.agents[lost]
            federation.queue = [letter for letter in federation.queue if letter[0] != lost]
        for _ in range(3000):
            if federation.coordinator.global_head.version == 1:
                break
            federation.step(chance=IN_ORDER)
        assert federation.coordinator.global_head.version == 1
    return [(topic, message) for _, topic, message in letters if isinstance(message, FROM_SITES)]


def test_what_a_site_sends_is_spread_evenly_over_all_integers(played):
    """Whatever its change: here nearly nothing."""
    federation, play_to_kind = played
    play_to_kind(Survivors)
    attempt = federation.agents["site-0"]._masking._try
    _, data = attempt.masked
    bits = modulus_bits(SECURE.bits, 4)
    length = len(data) * 8 // bits
    words = unpack(data, length, bits)
    assert abs(words.mean() / 2**bits - 0.5) < 4 * (1 / 12 / length) ** 0.5
    for bit in range(bits):
        assert abs((words >> bit & 1).mean() - 0.5) < 5 * (0.25 / length) ** 0.5
