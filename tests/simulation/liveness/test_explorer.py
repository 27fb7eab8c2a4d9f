"""Small bounds of the search through everything that can happen to a federation."""

import logging

import pytest

from benchmarks.liveness.explorer import explore
from benchmarks.liveness.parties import Parties
from benchmarks.liveness.party_states import PartyStates, Restarted, Waited
from fedmedclip.aggregator.recovery import Recovery
from fedmedclip.edge_client.site.state import SiteState


@pytest.fixture(autouse=True)
def _log_again():
    """The search turns logging off, for the whole process: later tests read the log."""
    yield
    logging.disable(logging.NOTSET)


def test_every_state_of_a_small_federation_leads_to_the_end():
    found = explore(sites=2, rounds=1, faults=1, reach=1)
    assert found.complete
    assert found.states > 500
    assert (found.deadlocks, found.double_counts) == ([], [])


def test_it_finds_a_site_that_never_sends_again_what_was_lost(monkeypatch):
    monkeypatch.setattr(SiteState, "reopen", lambda self, round_number: None)
    found = explore(sites=2, rounds=1, faults=1, reach=1)
    assert any("restore 0" in path[0] for path in found.deadlocks)


def test_it_finds_heads_that_count_what_a_site_takes_for_refused(monkeypatch):
    monkeypatch.setattr(Parties, "took_for_accepted", lambda self, site, round_number: False)
    assert explore(sites=1, rounds=1, faults=0).double_counts


def test_whatever_the_people_do_leads_to_the_end():
    found = explore(sites=1, rounds=1, faults=0, commands=1)
    assert found.complete
    assert found.states > 100
    assert (found.deadlocks, found.double_counts) == ([], [])


@pytest.mark.slow
def test_a_command_and_a_fault_lead_to_the_end():
    found = explore(sites=2, rounds=1, faults=1, commands=1, reach=1)
    assert found.complete
    assert found.states > 50_000
    assert (found.deadlocks, found.double_counts) == ([], [])


@pytest.mark.slow
def test_it_finds_an_aggregator_that_never_takes_back_what_was_changed_of_the_plan(monkeypatch):
    monkeypatch.setattr(Recovery, "tell_revision", lambda *_: None)
    found = explore(sites=1, rounds=1, faults=1, commands=1, reach=1)
    assert any("pause 0" in path[0] and "restore 0" in path[1] for path in found.deadlocks if path[1:])


@pytest.mark.slow
def test_two_faults_of_a_site_alone_lead_to_the_end():
    found = explore(sites=1, rounds=1, faults=2, reach=1)
    assert found.complete
    assert found.states > 1000
    assert (found.deadlocks, found.double_counts) == ([], [])


def test_an_event_is_played_once_for_each_state_of_a_party():
    parties = Parties(sites=1, rounds=1)
    states = PartyStates(parties)
    site = states.first("site-0").state
    before = len(states.states)
    assert states.after(site, Waited(21.0)) is states.after(site, Waited(21.0))
    assert states.states[states.after(site, Restarted()).state].clock == 0.0
    # Waiting, and another session: each start of a site is one.
    assert len(states.states) == before + 2
