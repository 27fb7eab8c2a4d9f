"""What commands change of an open round, how long that holds, and that giving one twice does no harm."""

import msgspec
import pytest

from fedmedclip.aggregator.commands import (
    AddRounds,
    Command,
    Deadline,
    Drop,
    End,
    Given,
    LeaveOut,
    Pause,
    carry_out,
)
from fedmedclip.aggregator.configuration import AggregatorConfiguration
from fedmedclip.aggregator.control import carry_out_waiting
from fedmedclip.aggregator.progress import DROPPED
from fedmedclip.aggregator.status import status_of
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.messages import Receipt
from tests.simulation.federation.loopback import Loopback


def ask(federation, command, *, by="anna", token="", at=0.0):
    """Give a command and carry it out, as the service does; return its answer and whether it failed."""
    number = federation.store.give_command(msgspec.json.encode(Given(by, command, token)), at)
    outgoing = carry_out_waiting(
        federation.store, federation.coordinator, federation.now, federation.aggregator_key
    )
    federation.plan = federation.coordinator.plan
    federation.from_aggregator(outgoing)
    return federation.store.command_answer(number)


def test_each_is_recorded_with_who_gave_it_and_what_came_of_it(tmp_path):
    federation = Loopback(tmp_path, sites=2, rounds=3)
    ask(federation, Pause())
    ask(federation, LeaveOut("site-9"), by="page")
    first, second = federation.store.command_log.records()
    assert (first.by, first.command, first.answer) == ("anna", '{"type":"Pause"}', "paused")
    assert not first.failed
    assert (second.by, second.failed) == ("page", True)
    assert federation.store.command_log.verify({federation.aggregator_key.public_key}).faults == ()


def test_a_dropped_site_does_not_count_in_this_round_and_takes_part_in_the_next(tmp_path):
    federation = Loopback(tmp_path, sites=3, rounds=3)
    late = federation.agents.pop("site-2")
    while "site-1" not in federation.coordinator.rounds.delivered:
        federation.step()
    ask(federation, Drop("site-1"))
    assert "site-1" not in federation.coordinator.rounds.delivered
    reasons = {member.site: member.reason for member in status_of(federation.coordinator, 0.0).members}
    assert reasons["site-1"] == DROPPED
    # A restart forgets nothing of it.
    federation.kill("aggregator")
    assert federation.coordinator.rounds.excused()["site-1"] == DROPPED
    federation.agents["site-2"] = late
    federation.start_site("site-2")
    federation.run()
    assert federation.final_digest()
    assert federation.learners["site-1"].trained == [1, 2, 3]
    assert federation.store._database.row("SELECT last_round FROM sites WHERE name = 'site-1'") == (3,)


def test_a_run_that_was_ended_while_updates_were_under_way_goes_on_when_it_gets_more_rounds(tmp_path):
    federation = Loopback(tmp_path, sites=2, rounds=3)
    while federation.coordinator.global_head.version < 1 or not all(
        learner.trained == [1, 2] for learner in federation.learners.values()
    ):
        federation.step()
    assert federation.coordinator.global_head.version == 1
    ask(federation, End())
    for _ in range(200):
        federation.step()
    assert all(agent.finished for agent in federation.agents.values())
    assert not any(state.outgoing_update() for state in federation.states.values())
    ask(federation, AddRounds(2))
    federation.run()
    assert federation.coordinator.global_head.version == 3
    assert federation.final_digest()


def test_a_site_that_delivers_after_it_was_dropped_is_told_why_it_does_not_count(tmp_path):
    federation = Loopback(tmp_path, sites=2, rounds=2)
    for _ in range(200):
        if "site-1" in federation.coordinator.rounds.awaited:
            break
        federation.step()
    ask(federation, Drop("site-1"))
    told, publish = [], federation.from_aggregator

    def watching(outgoing):
        told.extend(item for item in outgoing if isinstance(item.message, Receipt))
        publish(outgoing)

    federation.from_aggregator = watching
    federation.agents.pop("site-0")
    for _ in range(200):
        federation.step()
    receipt = next(item.message for item in told if item.topic.endswith("down/site-1"))
    assert (receipt.round_number, receipt.accepted, receipt.closed) == (1, False, False)
    assert "the coordinator dropped it" in receipt.reason
    federation.start_site("site-0")
    federation.run()
    assert federation.final_digest()


def test_where_all_are_dropped_the_run_goes_on_from_the_same_head(tmp_path):
    federation = Loopback(tmp_path, sites=2, rounds=3)
    while not federation.coordinator.rounds.delivered:
        federation.step()
    before = federation.coordinator.global_head.digest
    (first,) = federation.coordinator.rounds.delivered
    for site in (first, *({"site-0", "site-1"} - {first})):
        ask(federation, Drop(site))
    while federation.coordinator.global_head.version == 0:
        federation.step()
    assert federation.store.versions_after(0)[0].head_digest == before
    federation.plan = federation.coordinator.plan
    assert federation.plan.rounds == 4
    federation.run()
    assert federation.final_digest()


def test_nobody_is_dropped_where_no_round_is_open_or_who_is_no_member(tmp_path):
    federation = Loopback(tmp_path, sites=2, rounds=1)
    with pytest.raises(InvalidInputError, match="is no member"):
        carry_out(Drop("site-9"), federation.coordinator, 0.0)
    federation.run()
    with pytest.raises(InvalidInputError, match="no round is open"):
        carry_out(Drop("site-0"), federation.coordinator, 0.0)


def written(**federation):
    return msgspec.convert(
        {"federation": {"name": "trial", "bundle": "b", "rounds": 3, **federation}}, AggregatorConfiguration
    )


def test_a_deadline_holds_for_the_open_round_and_over_restarts_until_the_file_is_edited(tmp_path):
    federation = Loopback(tmp_path, sites=2, rounds=3, minimum_sites=1, round_timeout_seconds=3600.0)
    while not federation.coordinator.rounds.delivered:
        federation.step()
    federation.agents.pop("site-1")
    ask(federation, Deadline(50))
    assert federation.coordinator.rounds.settings.timeout_seconds == 50
    began = federation.now
    while federation.coordinator.global_head.version == 0:
        federation.step()
    assert federation.now - began < 100
    overrides = federation.store.overrides
    assert overrides.applied(written()).federation.round_timeout_seconds == 50
    ask(federation, Deadline(70))
    assert overrides.applied(written()).federation.round_timeout_seconds == 70
    assert overrides.applied(written(round_timeout_seconds=900.0)).federation.round_timeout_seconds == 900
    # What was edited once is over, also when the file says the same as before again.
    assert overrides.applied(written()).federation.round_timeout_seconds == 3600


def test_a_longer_deadline_lets_a_round_that_was_overdue_be_overdue_once_more(tmp_path, caplog):
    federation = Loopback(tmp_path, sites=2, rounds=3, minimum_sites=2, round_timeout_seconds=60.0)
    while not federation.coordinator.rounds.delivered:
        federation.step()
    federation.agents.pop("site-1")

    def reports():
        return caplog.text.count("time is over")

    while reports() < 1:
        federation.step()
    ask(federation, Deadline(5000))
    for _ in range(50):
        federation.step()
    assert reports() == 1
    while reports() < 2:
        federation.step()


@pytest.mark.parametrize(("token", "later"), [("form-1", 60.0), ("", 0.5)])
def test_a_double_click_adds_rounds_once(tmp_path, token, later):
    federation = Loopback(tmp_path, sites=1, rounds=3)
    first = ask(federation, AddRounds(2), token=token, at=100.0)
    again = ask(federation, AddRounds(2), token=token, at=100.0 + later)
    assert federation.plan.rounds == 5
    assert again == (f"{first[0]} (given twice, done once)", False)
    ask(federation, AddRounds(2), token=token and "form-2", at=200.0)
    assert federation.plan.rounds == 7


def test_what_is_not_within_bounds_is_no_command():
    for command in (Deadline(0.5), Deadline(1e9)):
        with pytest.raises(msgspec.ValidationError):
            msgspec.json.decode(msgspec.json.encode(command), type=Command)
