"""What the operator's commands do to a run, and what they are answered."""

import threading
import time

import msgspec
import pytest

from fedmedclip.aggregator import control
from fedmedclip.aggregator.commands import (
    AddRounds,
    Command,
    End,
    LeaveOut,
    Pause,
    Resume,
    RollBack,
    carry_out,
    read_command,
)
from fedmedclip.aggregator.control import carry_out_waiting, give
from fedmedclip.aggregator.store import Store
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.messages import Announcement, Plan
from tests.simulation.federation.loopback import Loopback

ROUNDS = 6


def played(folder, version):
    """Return a federation of which `version` rounds are done."""
    federation = Loopback(folder, sites=2, rounds=ROUNDS, embedding_size=8)
    while federation.coordinator.global_head.version < version:
        federation.step()
    return federation


def plan_in(outgoing):
    (plan,) = (item.message for item in outgoing if isinstance(item.message, Plan))
    return plan


def test_a_pause_and_its_end_are_told_to_every_site(tmp_path):
    federation = played(tmp_path, 1)
    answer, outgoing = carry_out(Pause(), federation.coordinator, 1.0)
    assert (answer, plan_in(outgoing).paused) == ("paused", True)
    answer, outgoing = carry_out(Resume(), federation.coordinator, 2.0)
    assert (answer, plan_in(outgoing).paused) == ("resumed", False)


def test_the_end_is_the_newest_version_and_not_before_the_first(tmp_path):
    federation = played(tmp_path, 0)
    with pytest.raises(InvalidInputError, match="no round is done yet"):
        carry_out(End(), federation.coordinator, 1.0)
    while federation.coordinator.global_head.version < 1:
        federation.step()
    answer, outgoing = carry_out(End(), federation.coordinator, 1.0)
    assert (answer, plan_in(outgoing).rounds) == ("version 1 is the last", 1)
    assert federation.coordinator.global_head.finished


def test_rounds_are_added_to_those_planned_also_when_the_run_was_ended(tmp_path):
    federation = played(tmp_path, 2)
    answer, outgoing = carry_out(AddRounds(3), federation.coordinator, 1.0)
    assert (answer, plan_in(outgoing).rounds) == (f"the run has {ROUNDS + 3} rounds now", ROUNDS + 3)
    carry_out(End(), federation.coordinator, 2.0)
    assert plan_in(carry_out(AddRounds(1), federation.coordinator, 3.0)[1]).rounds == 3


def test_a_site_is_left_out_of_the_open_round(tmp_path):
    federation = played(tmp_path, 1)
    coordinator = federation.coordinator
    answer, _ = carry_out(LeaveOut("site-1"), coordinator, federation.now)
    assert answer == "round 2 does not wait for site-1"
    assert "site-1" in coordinator.rounds.excused()
    assert "site-1" not in coordinator.rounds.awaited
    with pytest.raises(InvalidInputError, match="'site-9' is no member; members are site-0, site-1"):
        carry_out(LeaveOut("site-9"), coordinator, federation.now)


def test_a_rollback_says_which_version_has_the_head_and_keeps_the_rounds_that_were_left(tmp_path):
    federation = played(tmp_path, 3)
    answer, outgoing = carry_out(RollBack(1), federation.coordinator, federation.now)
    assert answer == "version 4 has the head of version 1"
    assert plan_in(outgoing[:1]).rounds == ROUNDS + 1
    announced = [item.message for item in outgoing if isinstance(item.message, Announcement)]
    assert {announcement.version for announcement in announced} == {4}


@pytest.mark.parametrize("number", [0, 1_000_001])
def test_numbers_out_of_bounds_are_no_command(number):
    for command in (AddRounds(number), RollBack(number or -1)):
        with pytest.raises(msgspec.ValidationError):
            msgspec.json.decode(msgspec.json.encode(command), type=Command)
    for command in (AddRounds(1), AddRounds(1_000_000), RollBack(0), RollBack(1_000_000)):
        assert msgspec.json.decode(msgspec.json.encode(command), type=Command) == command


def test_all_that_waits_is_carried_out_once_and_in_order_and_each_is_answered(tmp_path):
    federation = played(tmp_path, 1)
    store, coordinator = federation.store, federation.coordinator
    given = [Pause(), RollBack(99), AddRounds(1)]
    numbers = [store.give_command(msgspec.json.encode(command), 0.0) for command in given]
    garbage = store.give_command(b"{}", 0.0)
    assert [store.command_answer(number) for number in (*numbers, garbage)] == [None] * 4
    outgoing = carry_out_waiting(store, coordinator, federation.now, federation.aggregator_key)
    plans = [item.message for item in outgoing if isinstance(item.message, Plan)]
    assert [(plan.paused, plan.rounds) for plan in plans] == [(True, ROUNDS), (True, ROUNDS + 1)]
    paused, rolled, added = (store.command_answer(number) for number in numbers)
    assert (paused, added) == (("paused", False), (f"the run has {ROUNDS + 1} rounds now", False))
    assert rolled == ("version 99 is not here; the newest is 1", True)
    assert store.command_answer(garbage)[1]
    assert carry_out_waiting(store, coordinator, federation.now, federation.aggregator_key) == []


@pytest.fixture
def configuration(tmp_path):
    """A configuration whose state is there, with a run in it."""
    played(tmp_path / "state", 1).store.close()
    file = tmp_path / "aggregator.toml"
    file.write_text('[federation]\nname = "trial"\nbundle = "bundle"\nrounds = 6\nstate = "state"\n')
    return file


def test_an_answer_is_waited_for_and_a_refusal_is_an_error(configuration):
    coordinator_is_there = threading.Event()

    def aggregator():
        federation = Loopback(configuration.parent / "state", sites=0, minimum_sites=2)
        coordinator_is_there.set()
        for count in range(2):
            while not federation.store.open_commands():
                time.sleep(0.01)
            time.sleep(0.05 * count)
            carry_out_waiting(federation.store, federation.coordinator, 0.0, federation.aggregator_key)
        federation.store.close()

    thread = threading.Thread(target=aggregator)
    thread.start()
    coordinator_is_there.wait(30)
    assert give(configuration, Pause()) == "paused"
    with pytest.raises(InvalidInputError, match="version 99 is not here"):
        give(configuration, RollBack(99))
    thread.join(30)


def test_an_aggregator_that_does_not_run_does_it_when_it_starts(configuration, monkeypatch):
    monkeypatch.setattr(control, "ANSWER_SECONDS", 0.01)
    assert "as soon as it can" in give(configuration, Pause())
    # Nothing holds the file: SQLite's own files beside it are gone.
    assert [path.name for path in (configuration.parent / "state").glob("aggregator*")] == ["aggregator.db"]
    store = Store(configuration.parent / "state" / "aggregator.db")
    ((_, _, encoded),) = store.open_commands()
    assert read_command(encoded).command == Pause()
    store.close()


def test_without_a_run_there_is_nothing_to_steer(tmp_path):
    file = tmp_path / "aggregator.toml"
    file.write_text('[federation]\nname = "trial"\nbundle = "bundle"\nrounds = 6\nstate = "state"\n')
    with pytest.raises(InvalidInputError, match=r"aggregator\.db does not exist: .* has not begun a run"):
        give(file, Pause())
    assert not (tmp_path / "state").exists()
