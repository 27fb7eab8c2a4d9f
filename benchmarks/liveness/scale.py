"""What many sites cost the aggregator: seconds and disk of a round, and its peak of memory.

    python -m benchmarks.liveness.scale [--sites 1000] [--rounds 3]

The sites are light (`crowd`); aggregator, store and broker are real. The last line is one JSON object; exit
code 1 when a round takes more than 5 s with up to 1,000 sites or 60 s with up to 10,000, or when the
aggregator's memory comes above 100 MB. From the repository's root.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

from benchmarks.liveness.crowd import crowded_aggregator
from benchmarks.liveness.resources import folder_bytes, peak_megabytes, processor_seconds, written_bytes
from fedmedclip.aggregator.store import Store
from fedmedclip.protocol.errors import InvalidInputError

GOAL_MEGABYTES = 100.0


def goal_seconds(sites: int) -> float:
    """Return how long a round may take: above 10,000 sites in proportion."""
    return 5.0 if sites <= 1000 else 60.0 * max(1.0, sites / 10_000)


def measure(sites: int, rounds: int, folder: Path) -> dict[str, float]:
    """Play the rounds and return what they cost. Raises InvalidInputError when the run stands still."""
    with crowded_aggregator(folder, sites, rounds) as federation:
        aggregator, state = federation.aggregator, federation.state
        processes = {"aggregator": aggregator, "broker": federation.broker, "all sites": os.getpid()}
        began, written, size = time.monotonic(), written_bytes(aggregator), folder_bytes(state)
        used = {name: processor_seconds(process) for name, process in processes.items()}
        for round_number in range(1, rounds + 1):
            federation.crowd.deliver(round_number)
        seconds = time.monotonic() - began
        peak, written = peak_megabytes(aggregator), written_bytes(aggregator) - written
        used = {name: processor_seconds(process) - used[name] for name, process in processes.items()}
        size = folder_bytes(state) - size
    with closing(Store(state / "aggregator.db")) as store:
        made = store.newest_version().version
    if made != rounds:
        raise InvalidInputError(f"the run ended at version {made}, not {rounds}")
    shares = ", ".join(f"{name} {spent / rounds:.2f} s" for name, spent in used.items())
    print(f"processor time for each round: {shares}; the state grew by {size} bytes")
    return {
        "sites": sites,
        "rounds": rounds,
        "seconds_per_round": round(seconds / rounds, 2),
        "aggregator_peak_mb": round(peak, 1),
        "disk_bytes_per_round": written // rounds,
    }


def main() -> int:
    """Measure, print, and compare with the goals."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sites", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        found = measure(arguments.sites, arguments.rounds, Path(name))
    print(json.dumps(found))
    slow = found["seconds_per_round"] > goal_seconds(arguments.sites)
    return int(slow or found["aggregator_peak_mb"] > GOAL_MEGABYTES)


if __name__ == "__main__":
    sys.exit(main())
