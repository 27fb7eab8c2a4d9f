"""Kill and stop the parties of a federation at random moments: the heads stay the same, bit by bit.

    python -m benchmarks.liveness.chaos [--kills 100] [--seed 0]

Real processes, and a Mosquitto with memory. For each codec and embedding size one run is left alone; then it
is played again and again while somebody is killed (SIGKILL, and started again) or stopped for a while
(SIGSTOP, SIGCONT): the aggregator, a site, the broker. The global head and every private head must be those
of the run left alone. The last line is one JSON object; exit code 1 when something differs or stands
still.
"""

import argparse
import json
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from fedmedclip.edge_client.site.state import SiteState
from fedmedclip.simulation.demo.summary import newest_version
from fedmedclip.simulation.processes.brokers import MosquittoBroker
from fedmedclip.simulation.processes.commands import ProcessFailedError
from tests.simulation.demo.real_federation import Federation, write_data

SITES = ("site-a", "site-b", "site-c")
ROUNDS = 12
SETUPS = (("lowrank", 16), ("int8", 64), ("topk", 16), ("lowrank", 64))
KILLS_PER_RUN = 8
PAUSE_SECONDS = (0.2, 2.5)
STOP_SECONDS = (0.2, 2.0)
LONGEST_SECONDS = 90.0

Heads = tuple[bytes, ...]
"""The digest of the last global head, then each site's private head."""


@dataclass
class Outcome:
    """What came of the kills: `longest_recovery_seconds` is from a restart to the next new version or end."""

    kills: int = 0
    identical: bool = True
    longest_recovery_seconds: float = 0.0
    by_phase: Counter[str] = field(default_factory=Counter)


def play(kills: int, seed: int, folder: Path) -> Outcome:
    """Kill so many parties, in as many runs as that takes."""
    chance, outcome = random.Random(seed), Outcome()
    data = write_data(folder / "data", SITES)
    expected: dict[tuple[str, int], Heads] = {}
    run = 0
    while outcome.kills < kills:
        setup = SETUPS[run % len(SETUPS)]
        if setup not in expected:
            expected[setup] = _run(folder / f"alone-{run}", data, setup, None, 0, outcome)
        left = min(KILLS_PER_RUN, kills - outcome.kills)
        found = _run(folder / f"run-{run}", data, setup, chance, left, outcome)
        same = found == expected[setup]
        outcome.identical &= same
        print(f"run {run}, {setup[0]}, D = {setup[1]}: {outcome.kills} kills, {'same' if same else 'OTHER'}")
        sys.stdout.flush()
        run += 1
    return outcome


def _run(
    folder: Path,
    data: Path,
    setup: tuple[str, int],
    chance: random.Random | None,
    kills: int,
    outcome: Outcome,
) -> Heads:
    codec, size = setup
    with MosquittoBroker() as broker:
        federation = Federation(
            folder, broker, data, sites=SITES, rounds=ROUNDS, codec=codec, embedding_size=size
        )
        try:
            federation.start("aggregator", *SITES, once=False)
            if chance is not None:
                _disturb(federation, broker, chance, kills, outcome)
            federation.wait_until(
                lambda: _everybody_holds(federation), "the run does not end", LONGEST_SECONDS
            )
        finally:
            for running in federation.processes.values():
                running.process.kill()
                running.process.wait()
    private = []
    for site in SITES:
        with closing(SiteState(folder / site / "site.db")) as state:
            stored = state.load()
            assert stored is not None
            private.append(stored.private_head)
    return (federation.digest_of(ROUNDS), *private)


def _disturb(
    federation: Federation, broker: MosquittoBroker, chance: random.Random, kills: int, outcome: Outcome
) -> None:
    """Kill or stop somebody, wait until the run is a version further, and so on until it is over."""
    aggregator = federation.folder / "aggregator"
    for _ in range(kills):
        time.sleep(chance.uniform(*PAUSE_SECONDS))
        victim = chance.choice(["aggregator", *SITES, "broker"])
        if _everybody_holds(federation):
            return
        phase, version = _phase(federation), _version(aggregator)
        if victim == "broker":
            broker.kill()
            broker.restart()
        elif chance.random() < 0.7:
            federation.kill(victim)
            federation.start(victim)
        else:
            federation.processes[victim].process.send_signal(signal.SIGSTOP)
            time.sleep(chance.uniform(*STOP_SECONDS))
            federation.processes[victim].process.send_signal(signal.SIGCONT)
        outcome.kills += 1
        outcome.by_phase[phase] += 1
        restarted = time.monotonic()
        federation.wait_until(
            lambda before=version: _version(aggregator) > before or _all_over(federation),  # type: ignore[misc]
            f"no progress after {victim} was killed while {phase}",
            LONGEST_SECONDS,
        )
        seconds = time.monotonic() - restarted
        outcome.longest_recovery_seconds = max(outcome.longest_recovery_seconds, seconds)


def _version(aggregator: Path) -> int:
    return newest_version(aggregator) if (aggregator / "aggregator.db").exists() else 0


def _all_over(federation: Federation) -> bool:
    return _version(federation.folder / "aggregator") >= ROUNDS


def _everybody_holds(federation: Federation) -> bool:
    return _all_over(federation) and all(_held(federation.folder / site) >= ROUNDS for site in SITES)


def _phase(federation: Federation) -> str:
    """Return what the federation is doing, as the aggregator's log has it."""
    lines = federation.log_of("aggregator").splitlines()
    if sum("joined with" in line for line in lines) < len(SITES):
        return "joining"
    if _all_over(federation):
        return "idle"
    last = next((line for line in reversed(lines) if "round " in line), "")
    if "delivered" not in last:
        # Right after it was made a version is still on its way.
        journals = [_held(federation.folder / site) for site in SITES]
        return "announcing" if min(journals) < _version(federation.folder / "aggregator") else "training"
    number = last.split("round ")[1].split(":")[0]
    delivered = sum(f"round {number}:" in line and "delivered" in line for line in lines)
    return "aggregating" if delivered >= len(SITES) else "delivering"


def _held(site: Path) -> int:
    if not (site / "site.db").exists():
        return -1
    with closing(SiteState(site / "site.db")) as state:
        stored = state.load()
    return -1 if stored is None else stored.version


def main() -> int:
    """Play, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        try:
            outcome = play(arguments.kills, arguments.seed, Path(name))
        except (AssertionError, ProcessFailedError) as error:
            print(f"stands still: {error}")
            return 1
    print(
        json.dumps(
            {
                "kills": outcome.kills,
                "identical": outcome.identical,
                "longest_recovery_s": round(outcome.longest_recovery_seconds, 1),
                "by_phase": dict(sorted(outcome.by_phase.items())),
            }
        )
    )
    return int(not outcome.identical)


if __name__ == "__main__":
    sys.exit(main())
