"""Many rounds: memory, open descriptors and disk of the aggregator stay where they were.

    python -m benchmarks.liveness.soak [--rounds 1000] [--sites 50]

The sites are light (`crowd`); aggregator, store and broker are real. Besides their updates some sites do, in
every round, what a long life brings: join again, ask for the head that they lack, say that they are there,
deliver twice, send an update that nobody can read. Broadcasts are large (int4, D = 256) and
`keep_megabytes` is 1, so that what is kept of the past is full after a few dozen rounds.

After a fifth of the rounds everything has to be warm. The next fifth and the last one are compared by the
value below which nine of ten rounds are: that of the process's own memory (without files, whose pages come
and go) may grow by 2 MB, that of its descriptors by 2 (some are open for a moment), and that of the disk
which its state takes by 5 %; it never takes more than 16 MB.
Ctrl-C ends it early. The last line is one JSON object; exit code 1 when something grows. From the
repository's root.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles

from benchmarks.liveness.crowd import Crowd, crowded_aggregator
from benchmarks.liveness.resources import folder_bytes, open_descriptors, own_megabytes
from fedmedclip.protocol.console import stopped_by_signals
from fedmedclip.protocol.messages import HeadRequest, Update

KEEP_MEGABYTES = 1
SETTINGS = {"keep_megabytes": KEEP_MEGABYTES, "downlink_codec": "int4"}
MEGABYTES_MORE = 2.0
DESCRIPTORS_MORE = 2
DISK_MORE = 1.05
DISK_MEGABYTES = 16.0
LEAST_ROUNDS = 25
SAY_SECONDS = 20.0


@dataclass
class Measured:
    """One value for each round."""

    own_megabytes: list[float] = field(default_factory=list)
    descriptors: list[float] = field(default_factory=list)
    disk_megabytes: list[float] = field(default_factory=list)
    seconds: float = 0.0

    def newest(self) -> str:
        """Return the last of each, in words."""
        memory, disk = self.own_megabytes[-1], self.disk_megabytes[-1]
        return f"{memory:.1f} MB, {self.descriptors[-1]:.0f} descriptors, {disk:.1f} MB of disk"

    def note(self, process: int, state: Path) -> None:
        """Measure the aggregator after a round."""
        self.own_megabytes.append(own_megabytes(process))
        self.descriptors.append(open_descriptors(process))
        self.disk_megabytes.append(folder_bytes(state) / 1e6)


def soak(sites: int, rounds: int, folder: Path, measured: Measured) -> None:
    """Play the rounds; `measured` has what was found until now."""
    chance, began, said_at = random.Random(0), time.monotonic(), 0.0
    with crowded_aggregator(folder, sites, rounds, SETTINGS) as federation:
        for round_number in range(1, rounds + 1):
            live(federation.crowd, round_number, chance)
            federation.crowd.deliver(round_number)
            measured.note(federation.aggregator, federation.state)
            measured.seconds = time.monotonic() - began
            if time.monotonic() - said_at >= SAY_SECONDS:
                said_at = time.monotonic()
                print(f"round {round_number}: {measured.newest()}", flush=True)


def live(crowd: Crowd, round_number: int, chance: random.Random) -> None:
    """Let one site each do what sites do at times."""
    joining, asking, there, twice, broken = chance.sample(sorted(crowd.keys), 5)
    crowd.send(joining, crowd.join_of(joining))
    crowd.send(asking, HeadRequest(chance.randrange(-1, round_number)))
    crowd.send_status(there, round_number - 1)
    crowd.send(twice, crowd.update_of(twice, round_number))
    crowd.send(broken, Update(round_number, 100, b"no head", 0))


def judge(measured: Measured) -> dict[str, object]:
    """Return how it was after the warm-up and at the end, and whether that is flat."""
    fifth = max(1, len(measured.descriptors) // 5)

    def compare(values: list[float]) -> tuple[float, float]:
        # The allocator gives a few megabytes back and takes them again: a median would jump between the two.
        parts = values[fifth : 2 * fifth], values[-fifth:]
        early, late = (quantiles(part, n=10, method="inclusive")[-1] for part in parts)
        return round(early, 2), round(late, 2)

    memory = compare(measured.own_megabytes)
    descriptors = compare(measured.descriptors)
    disk = compare(measured.disk_megabytes)
    return {
        "own_memory_mb": memory,
        "descriptors": descriptors,
        "disk_mb": disk,
        "flat": memory[1] - memory[0] <= MEGABYTES_MORE
        and descriptors[1] - descriptors[0] <= DESCRIPTORS_MORE
        and disk[1] <= DISK_MORE * disk[0]
        and max(measured.disk_megabytes) <= DISK_MEGABYTES,
    }


def main() -> int:
    """Play, and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--sites", type=int, default=50)
    arguments = parser.parse_args()
    measured = Measured()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        try:
            with stopped_by_signals():
                soak(arguments.sites, arguments.rounds, Path(name), measured)
        except KeyboardInterrupt:
            print("stopped; what was found until now:")
    rounds = len(measured.descriptors)
    if rounds < LEAST_ROUNDS:
        print(f"{rounds} rounds say nothing; at least {LEAST_ROUNDS} are needed")
        return 1
    seconds = round(measured.seconds / rounds, 2)
    found = judge(measured)
    print(json.dumps({"sites": arguments.sites, "rounds": rounds, "seconds_per_round": seconds, **found}))
    return int(not found["flat"])


if __name__ == "__main__":
    sys.exit(main())
