"""Everything that can happen to a small federation: is there a state from which its run does not end?

    python -m benchmarks.liveness.explorer [--sites 2] [--rounds 3] [--faults 1] [--commands 1] [--reach 2]
        [--states N]

Breadth first over all states that a number of faults leads to: messages lost, repeated, overtaken by at
most `--reach` others; crashes of each party; a broker that loses all it holds; a refused update; time
that passes while messages are on their way; a party's database replaced by a copy of version 0 or 1.
With them come a number of commands: the coordinator pauses or ends the run, adds a round, goes back to the
first head, leaves out, drops or quarantines a site; a site's operator refuses the plan that they approved.
What only a person can end (a pause, a quarantine, a plan without approval) they end when nothing is on its
way any more.

Each state has one successor without a fault: the oldest message is delivered or, with none on its way, time
passes. Following these from every state must lead to the end, where all heads are the same; a cycle of them
is a deadlock, and so is a way of more than 1,000. No head may be made of one update twice, or of one that its
site takes for refused. The parties are the code, the network is a model: see `parties` and `network`. What an
event does to a party is computed once for each of that party's states (`party_states`). The last line is one
JSON object.
"""

import argparse
import json
import logging
import sys
import time
from collections import deque
from dataclasses import dataclass, field

from benchmarks.liveness.clocks import short_clocks
from benchmarks.liveness.network import Network, State, Step
from benchmarks.liveness.parties import Parties
from fedmedclip.edge_client.site.policy import PolicySettings

_LONGEST_WAY = 1000


@dataclass
class Explored:
    """What was found. A path is what happened from the beginning on, without the steps that need no fault."""

    states: int = 0
    party_states: int = 0
    transitions: int = 0
    complete: bool = True
    deadlocks: list[list[str]] = field(default_factory=list)
    double_counts: list[list[str]] = field(default_factory=list)


def explore(
    sites: int = 2,
    rounds: int = 3,
    faults: int = 1,
    reach: int = 2,
    limit: int = 10**9,
    commands: int = 0,
) -> Explored:
    """Visit every state, at most `limit`; of a search that is cut off, the fair paths are followed to their
    end all the same.
    """
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with short_clocks():
            return _explore(
                Network(Parties(sites, rounds, PolicySettings()), reach=reach), faults, commands, limit
            )
    finally:
        logging.disable(before)


def _explore(network: Network, faults: int, commands: int, limit: int) -> Explored:
    first = network.beginning(faults, commands)
    graph = _Graph(network)
    graph.add(first, None, Step("go"))
    found = Explored()
    while graph.waiting:
        name, state = graph.waiting.popleft()
        if graph.undisturbed[name] > _LONGEST_WAY:
            graph.successor[name] = name
            continue
        if len(graph.successor) >= limit:
            found.complete = False
        for step in network.steps(state):
            if step.kind != "go" and not found.complete:
                break
            if step.kind == "go" and network.ended(state):
                graph.successor[name] = None
                continue
            after = graph.add(network.take(state, step), name, step)
            found.transitions += 1
            if step.kind == "go":
                graph.successor[name] = after
        if network.counts_twice(state):
            found.double_counts.append(graph.path(name))
    found.states, found.party_states = len(graph.successor), network.party_states
    found.deadlocks = [graph.path(name) for name in graph.never_ending()]
    return found


class _Graph:
    """The states that were seen, by their essence, and how each was reached first."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._reached: dict[bytes, tuple[bytes | None, Step]] = {}
        self.successor: dict[bytes, bytes | None] = {}
        self.undisturbed: dict[bytes, int] = {}
        """How many steps lie behind each since the last that was a fault or a command."""
        self.waiting: deque[tuple[bytes, State]] = deque()

    def add(self, state: State, before: bytes | None, step: Step) -> bytes:
        name = state.essence()
        if name not in self._reached:
            self._reached[name] = (before, step)
            alone = step.kind == "go" and before is not None
            self.undisturbed[name] = self.undisturbed.get(before or b"", 0) + 1 if alone else 0
            self.waiting.append((name, state))
        return name

    def path(self, name: bytes) -> list[str]:
        """Return the faults on the way to a state, each with the number of the step at which it came."""
        steps: list[Step] = []
        before: bytes | None = name
        while before is not None:
            before, step = self._reached[before]
            steps.append(step)
        steps.reverse()
        return [f"{index}: {step.kind} {step.which}" for index, step in enumerate(steps) if step.kind != "go"]

    def never_ending(self) -> list[bytes]:
        """Return one state of each cycle of successors: whoever comes there never ends."""
        ends: set[bytes] = set()
        stuck: list[bytes] = []
        for start in self.successor:
            trail: dict[bytes, None] = {}
            at: bytes | None = start
            while at is not None and at not in ends and at not in trail:
                trail[at] = None
                at = self.successor[at]
            if at is not None and at in trail:
                stuck.append(start)
            ends.update(trail)
        return stuck


def main() -> int:
    """Explore and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sites", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--faults", type=int, default=1, help="how many faults may come together")
    parser.add_argument("--commands", type=int, default=0, help="how many commands may come with them")
    parser.add_argument("--reach", type=int, default=2, help="by how many messages one may be overtaken")
    parser.add_argument("--states", type=int, default=10**9, help="no new faults after so many states")
    arguments = parser.parse_args()
    started = time.monotonic()
    found = explore(
        arguments.sites,
        arguments.rounds,
        arguments.faults,
        arguments.reach,
        arguments.states,
        arguments.commands,
    )
    print(
        f"{found.states} states, {found.transitions} transitions in {time.monotonic() - started:.0f} s; "
        + ("all within the bounds" if found.complete else "cut off: not all of the last depth")
    )
    for what, paths in (("never ends", found.deadlocks), ("counts twice", found.double_counts)):
        for path in paths[:10]:
            print(f"{what}: {', '.join(path)}")
    numbers = {
        "states": found.states,
        "party_states": found.party_states,
        "transitions": found.transitions,
        "deadlocks": len(found.deadlocks),
        "double_counts": len(found.double_counts),
    }
    print(json.dumps(numbers))
    return int(bool(found.deadlocks or found.double_counts))


if __name__ == "__main__":
    sys.exit(main())
