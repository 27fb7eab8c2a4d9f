"""Small bounds of the search through everything that can happen to a federation."""

import logging

import pytest

from benchmarks.liveness.explorer import explore
from benchmarks.liveness.network import Network
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


def test_it_finds_heads_that_count_what_a_site_was_told_does_not_count(monkeypatch):
    told = Network._deliver

    def forget(self, letter):
        touched = told(self, letter)
        self._told = dict.fromkeys(self._told, False)
        return touched

    monkeypatch.setattr(Network, "_deliver", forget)
    assert explore(sites=1, rounds=1, faults=0).double_counts
