"""What goes wrong in a federation of real processes, one thing after the other, and whether its run ends.

    python -m benchmarks.liveness.faults [--only NAME ...]

The situations are in `stored_faults` and `shared_faults`. Each holds when the run comes to its end with the
same head everywhere, and what the situation names is so. The last line is one JSON object,
{name: {"held", "seconds"}}; exit code 1 when something did not hold. From the repository's root.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.liveness import shared_faults, stored_faults
from benchmarks.liveness.trial import SITES, Trial
from fedmedclip.simulation.processes.brokers import MosquittoBroker
from fedmedclip.simulation.processes.commands import ProcessFailedError
from tests.simulation.demo.real_federation import write_data

SITUATIONS = {
    situation.__name__: situation for situation in (*stored_faults.SITUATIONS, *shared_faults.SITUATIONS)
}


def held(situation: Callable[[Trial], None], folder: Path, data: Path) -> tuple[bool, float]:
    """Play a situation; return whether it held, and the seconds that it took."""
    started = time.monotonic()
    with MosquittoBroker() as broker:
        trial = Trial(folder, broker, data)
        try:
            situation(trial)
            problem = ""
        except (AssertionError, OSError, ProcessFailedError, subprocess.SubprocessError) as error:
            problem = str(error) or f"{situation.__name__} did not hold"
        finally:
            trial.kill_all()
    seconds = time.monotonic() - started
    print(f"{situation.__name__}: {problem or 'held'} ({seconds:.0f} s)", flush=True)
    return not problem, seconds


def main() -> int:
    """Play the situations and print what held."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=SITUATIONS, default=SITUATIONS, metavar="NAME")
    results: dict[str, dict[str, object]] = {}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        data = write_data(Path(name) / "data", SITES)
        for chosen in parser.parse_args().only:
            well, seconds = held(SITUATIONS[chosen], Path(name) / chosen, data)
            results[chosen] = {"held": well, "seconds": round(seconds, 1)}
    print(json.dumps(results))
    return int(not all(result["held"] for result in results.values()))


if __name__ == "__main__":
    sys.exit(main())
