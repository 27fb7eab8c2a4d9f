"""Kill and stop the parties of a federation at random moments: the heads stay the same, bit by bit.

    python -m benchmarks.liveness.chaos [--kills 100] [--seed 0]

Real processes, and a Mosquitto. For each codec and embedding size one run is left alone; then it is played
again and again while somebody is struck: one to three of aggregator, sites and broker at a time are killed
(SIGKILL, and started again; the broker with its files or without) or stopped for a while (SIGSTOP, SIGCONT),
at times before they have recovered from the blow before. Each of them counts as one kill. The global head,
and every site's shared and private head, must be those of the run left alone. Ctrl-C ends it early. The last
line is one JSON object; exit code 1 when something differs or stands still, and then the files are kept.
"""

import argparse
import itertools
import json
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.liveness.forking import ForkServer
from benchmarks.liveness.struck import BROKER, SITES, StruckFederation
from fedmedclip.edge_client.site.state import SiteState
from fedmedclip.protocol.console import stopped_by_signals
from fedmedclip.protocol.errors import FedMedClipError
from fedmedclip.simulation.processes.brokers import MosquittoBroker
from tests.simulation.demo.real_federation import write_data

SETUPS = (
    ("lowrank", 16),
    ("int8", 64),
    ("topk", 256),
    ("sign", 16),
    ("int8", 256),
    ("lowrank", 64),
    ("lowrank", 256),
    ("int4", 64),
)
"""Codec of both directions and embedding size. An int8 head of 256 travels in blocks."""
ROUNDS = 60
KILLS_PER_RUN = 90
PAUSE_SECONDS = 0.4
# How many are struck at a time, and how often; how often somebody is stopped instead of killed, the broker
# forgets, and the next blow does not wait for the recovery from this one.
AT_A_TIME, WEIGHTS = (1, 2, 3), (70, 20, 10)
STOPPED, FORGETS, AT_ONCE = 0.25, 0.3, 0.25
STOP_SECONDS = (0.1, 1.5)
LONGEST_SECONDS = 90.0
# How often to say how far it is.
SAY_SECONDS = 20.0
# The files of a run with a recovery as slow as this are kept.
SLOW_SECONDS = 10.0

Setup = tuple[str, int]
Heads = tuple[bytes, ...]
"""The digest of the last global head, then each site's shared and private head."""


@dataclass
class Outcome:
    """What came of the kills so far.

    `longest_recovery_seconds` is from a restart to the next new version or the end. `said_at` is when it was
    last said how far it is.
    """

    kills: int = 0
    identical: bool = True
    longest_recovery_seconds: float = 0.0
    by_phase: Counter[str] = field(default_factory=Counter)
    said_at: float = -SAY_SECONDS

    def as_dict(self) -> dict[str, object]:
        """Return it as it is printed."""
        return {
            "kills": self.kills,
            "identical": self.identical,
            "longest_recovery_s": round(self.longest_recovery_seconds, 1),
            "by_phase": dict(sorted(self.by_phase.items())),
        }

    def recovered(self, seconds: float, what: str) -> None:
        """Note how long a recovery took, and say it when none took longer."""
        if seconds > self.longest_recovery_seconds:
            self.longest_recovery_seconds = seconds
            self.say(f"recovery in {seconds:.1f} s: {what}")

    def say(self, words: str) -> None:
        """Print a line."""
        self.said_at = time.monotonic()
        print(words, flush=True)

    def say_sometimes(self, federation: StruckFederation) -> None:
        """Print how far it is, when nothing was said for a while."""
        if time.monotonic() - self.said_at >= SAY_SECONDS:
            longest = self.longest_recovery_seconds
            self.say(f"{self.kills} kills, longest recovery {longest:.1f} s; version {federation.version()}")


def play(kills: int, seed: int, folder: Path, outcome: Outcome) -> None:
    """Kill so many parties, in as many runs as that takes; `outcome` has what was done until now.

    Raises AssertionError when a run stands still.
    """
    chance, data = random.Random(seed), write_data(folder / "data", SITES)
    expected: dict[Setup, Heads] = {}
    with closing(ForkServer()) as server:
        for run in itertools.count():
            if outcome.kills >= kills:
                return
            setup, place = SETUPS[run % len(SETUPS)], folder / f"run-{run}"
            if setup not in expected:
                with _federation(place / "alone", data, server, setup) as federation:
                    _wait(federation, federation.everybody_holds, "the run does not end", outcome)
                expected[setup] = _heads(federation)
            with _federation(place / "struck", data, server, setup) as federation:
                _strike(federation, chance, min(kills, outcome.kills + KILLS_PER_RUN), outcome)
                _wait(federation, federation.everybody_holds, "the run does not end", outcome)
            same = _heads(federation) == expected[setup]
            outcome.identical &= same
            heads = "the same heads" if same else f"OTHER HEADS; files in {place}"
            outcome.say(f"run {run}, {setup[0]}, D = {setup[1]}: {outcome.kills} kills, {heads}")
            if federation.slow:
                outcome.say(f"a recovery was slow; files in {place}")
            elif same:
                shutil.rmtree(place)


@contextmanager
def _federation(folder: Path, data: Path, server: ForkServer, setup: Setup) -> Iterator[StruckFederation]:
    broker = MosquittoBroker()
    # While it is down, whoever looks for a free port on the usual address may find its own.
    broker.host = f"127.{'.'.join(str(random.SystemRandom().randrange(1, 255)) for _ in range(3))}"
    with broker:
        federation = StruckFederation(folder, broker, data, server, rounds=ROUNDS, setup=setup)
        try:
            federation.start("aggregator", *SITES)
            yield federation
        finally:
            federation.kill_all()


def _heads(federation: StruckFederation) -> Heads:
    heads = [federation.digest_of(ROUNDS)]
    for site in SITES:
        with closing(SiteState(federation.folder / site / "site.db")) as state:
            stored = state.load()
        assert stored is not None
        heads += [stored.shared_head, stored.private_head]
    return tuple(heads)


def _strike(federation: StruckFederation, chance: random.Random, until_kills: int, outcome: Outcome) -> None:
    """Strike until there were so many kills or the run is over."""
    while outcome.kills < until_kills:
        time.sleep(chance.uniform(0, PAUSE_SECONDS))
        if federation.everybody_holds():
            return
        number = min(chance.choices(AT_A_TIME, WEIGHTS)[0], until_kills - outcome.kills)
        struck = chance.sample(federation.parties, number)
        phase, version = federation.phase(), federation.version()
        how = _blow(federation, struck, chance)
        outcome.kills += number
        outcome.by_phase[phase] += number
        what = f"{', '.join(struck)} {how} while {phase}"
        federation.note(what)
        if chance.random() >= AT_ONCE or outcome.kills == until_kills:
            seconds = _wait_for_version_after(federation, version, what, outcome)
            outcome.recovered(seconds, what)
            if seconds >= SLOW_SECONDS:
                federation.slow = True
                federation.note(f"recovered only after {seconds:.1f} s")


def _blow(federation: StruckFederation, struck: list[str], chance: random.Random) -> str:
    """Stop or kill parties and let them go on; return what was done to them."""
    if chance.random() < STOPPED:
        federation.freeze(struck)
        time.sleep(chance.uniform(*STOP_SECONDS))
        federation.thaw(struck)
        return "stopped"
    forgetful = BROKER in struck and chance.random() < FORGETS
    federation.kill(*struck)
    federation.start_again(struck, forgetful=forgetful)
    return "killed, and the broker's files lost," if forgetful else "killed"


def _wait_for_version_after(federation: StruckFederation, version: int, what: str, outcome: Outcome) -> float:
    return _wait(federation, lambda: federation.is_past(version), f"no progress: {what}", outcome)


def _wait(federation: StruckFederation, true: Callable[[], bool], what: str, outcome: Outcome) -> float:
    """Wait until something holds; return the seconds. Raises AssertionError, with `what`, if it does not."""
    began = time.monotonic()

    def holds() -> bool:
        federation.require_alive()
        outcome.say_sometimes(federation)
        return true()

    federation.wait_until(holds, what, LONGEST_SECONDS)
    return time.monotonic() - began


def main() -> int:
    """Play, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    folder, outcome, code = Path(tempfile.mkdtemp(prefix="chaos-")), Outcome(), 0
    try:
        with stopped_by_signals():
            play(arguments.kills, arguments.seed, folder, outcome)
    except (AssertionError, FedMedClipError) as error:
        print(f"stands still: {error}")
        code = 1
    except KeyboardInterrupt:
        print("stopped; what was done until now:")
        shutil.rmtree(folder, ignore_errors=True)
    if not code:
        shutil.rmtree(folder / "data", ignore_errors=True)
        # What is left of it did not hold or was slow.
        with suppress(OSError):
            folder.rmdir()
    print(json.dumps(outcome.as_dict()))
    return int(code or not outcome.identical)


if __name__ == "__main__":
    sys.exit(main())
