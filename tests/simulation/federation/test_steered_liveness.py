"""No order of commands, restarts and lost messages leaves a run waiting for ever, but a pause."""

import random

import msgspec
import pytest

from fedmedclip.aggregator.commands import (
    AddRounds,
    Deadline,
    Drop,
    End,
    Given,
    LeaveOut,
    Pause,
    PutInQuarantine,
    Release,
    Resume,
    RollBack,
)
from fedmedclip.aggregator.control import carry_out_waiting
from tests.simulation.federation.loopback import Loopback

SITES = ("site-0", "site-1", "site-2")


def some_command(chance):
    site = chance.choice(SITES)
    return chance.choice(
        [Pause(), Resume(), End(), AddRounds(1), Deadline(30), Deadline(500), LeaveOut(site), Drop(site),
         Drop(site), Drop(site), PutInQuarantine(site), Release(site), RollBack(chance.randrange(3))]
    )  # fmt: skip


def give(federation, *commands):
    for command in commands:
        federation.store.give_command(msgspec.json.encode(Given("", command)), 0.0)
    outgoing = carry_out_waiting(
        federation.store, federation.coordinator, federation.now, federation.aggregator_key
    )
    federation.from_aggregator(outgoing)
    federation.plan = federation.coordinator.plan


@pytest.mark.parametrize("seed", range(3))
def test_any_order_of_commands_kills_and_losses_comes_to_an_end(tmp_path, seed):
    chance = random.Random(seed)
    federation = Loopback(tmp_path, sites=3, rounds=3, minimum_sites=2)
    for _ in range(12):
        for _ in range(chance.randrange(40)):
            federation.step(loss=0.1, repeats=0.1, kills=0.03, chance=chance)
        give(federation, some_command(chance))
    give(federation, *(Release(site) for site in SITES), Resume())
    for _ in range(20_000):
        federation.plan = federation.coordinator.plan
        if all(agent.finished for agent in federation.agents.values()) and not federation.queue:
            break
        federation.step(kills=0.001, chance=chance)
    else:
        raise AssertionError(f"stuck at version {federation.coordinator.global_head.version}")
    assert federation.final_digest()
    assert federation.store.command_log.verify({federation.aggregator_key.public_key}).faults == ()
