"""Hands hostile inputs to everything that reads bytes of others, and keeps what it does not bear.

    python -m benchmarks.fuzz --inputs 1000000
    python -m benchmarks.fuzz --inputs 20000 --target envelope --target bundle --seed 7 --engine mutations
    python -m benchmarks.fuzz --target envelope --replay FILE-OF-A-FINDING

Every input must be taken, or refused with an error that its reader promises, in one line; within 0.1 s of
processor time and the target's memory; and it must not end the process. The targets are in `registry`; what
an input is to a target stands in the target's module. What fails is kept as a file in `findings` of the
folder, one for each fault, to become a test (`tests/fuzz/regressions`).

The engine "mutations" changes valid inputs by a seed: two runs with the same seed take the same inputs.
"atheris" (the extra `[fuzz]`) is led by the coverage of our own Python code, and keeps in `corpus` what
reached something new. Without a choice it is atheris where that is installed. The last line is one JSON
object; the exit code is 1 where anything was found.
"""

import argparse
import importlib.util
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.fuzz.registry import TARGETS, inputs_of_each
from benchmarks.fuzz.target import Target
from benchmarks.fuzz.watch import Watch
from benchmarks.fuzz.worker import Worker, keep

# A worker's process is made anew after so many: what one input leaves behind is not every later one's.
_INPUTS_OF_ONE = 200_000
_MOST_CRASHES = 5


@dataclass
class Outcome:
    """What a target bore."""

    target: str
    inputs: int = 0
    seconds: float = 0.0
    slowest_ms: float = 0.0
    largest_kib: int = 0
    crashes: int = 0
    findings: int = 0


def main() -> None:
    """Run what the options say; exit with 1 when anything was found."""
    options = _options()
    chosen = [TARGETS[name] for name in options.target or TARGETS]
    if options.replay is not None:
        sys.exit(any(_replay(target, options.replay) for target in chosen))
    counts = inputs_of_each(chosen, options.inputs)
    print(f"{'target':<24} {'inputs':>9} {'a second':>9} {'slowest':>9} {'memory':>10}  found", flush=True)
    # The longest first, so that the last ones end together.
    chosen.sort(key=lambda target: -counts[target.name])
    play = partial(_play, counts=counts, options=options)
    with ThreadPoolExecutor(options.processes) as pool:
        outcomes = list(pool.map(play, chosen))
    total = sum(outcome.inputs for outcome in outcomes)
    found = sum(outcome.findings for outcome in outcomes)
    print(f"{total:,} inputs, {found} faults found")
    print(json.dumps({"inputs": total, "findings": found, "targets": [asdict(one) for one in outcomes]}))
    sys.exit(bool(found))


def _play(target: Target, counts: dict[str, int], options: argparse.Namespace) -> Outcome:
    outcome, began, generation = Outcome(target.name), time.monotonic(), 0
    while outcome.inputs < counts[target.name] and outcome.crashes < _MOST_CRASHES:
        inputs = min(_INPUTS_OF_ONE, counts[target.name] - outcome.inputs)
        report = Worker(target, inputs, f"{options.seed}:{generation}", options.engine, options.out).finish()
        outcome.inputs += report.inputs
        outcome.slowest_ms = max(outcome.slowest_ms, round(1000 * report.slowest, 1))
        outcome.largest_kib = max(outcome.largest_kib, report.largest >> 10)
        if report.crash is not None:
            outcome.crashes += 1
            keep(report.crash, target.name, options.out)
        generation += 1
    outcome.seconds = round(time.monotonic() - began, 1)
    outcome.findings = len(list((options.out / "findings" / target.name).glob("*.bin")))
    print(
        f"{outcome.target:<24} {outcome.inputs:>9,} {outcome.inputs / max(0.1, outcome.seconds):>9,.0f} "
        f"{outcome.slowest_ms:>6.1f} ms {outcome.largest_kib:>6,} KiB  {outcome.findings or ''}",
        flush=True,
    )
    return outcome


def _replay(target: Target, path: Path) -> bool:
    """Take one kept input again, here and now; return whether it is still a finding."""
    with TemporaryDirectory() as scratch:
        watch = Watch(target, target.prepare(Path(scratch)))
        found = watch.look(path.read_bytes()) or watch.look(path.read_bytes(), traced=True)
    print(f"{target.name}: {f'{found.kind}: {found.details}' if found else 'borne'}")
    return found is not None


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    installed = importlib.util.find_spec("atheris") is not None
    parser.add_argument("--inputs", type=int, default=1_000_000, help="of all targets together")
    parser.add_argument(
        "--target", action="append", choices=sorted(TARGETS), help="may be repeated; else all"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--engine", choices=("mutations", "atheris"), default="atheris" if installed else "mutations"
    )
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("fuzz-findings"), help="findings and corpus")
    parser.add_argument("--replay", type=Path, help="one kept input, for each --target")
    return parser.parse_args()


if __name__ == "__main__":
    main()
