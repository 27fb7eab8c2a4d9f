"""One-shot methods at equal bytes: FedCOF, Fed3R, AFL and FedCGS beside the product's own, in one table.

    python -m benchmarks.one_shot.comparison --data DIR --bundle B --out DIR [--budgets 900,1460]

from the repository's root, in an environment with the extras [bench] and [train]. Each peer sends its
statistics in one Update within each budget of bytes, and once in float32, whatever that takes. Test images
are the members' own, those of each hospital that is left out in turn (with no labelled image, and with so
many per class, with which it joins as one more member), and of no hospital: sites, splits, groups and
newcomers are those of `bench newcomer`. Writes one-shot.json and one-shot.md; stopped, it goes on.
"""

import argparse
import shlex
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import msgspec
from rich.console import Console

from benchmarks.one_shot.contenders import Contender, contenders
from benchmarks.one_shot.table import Evidence, Key, Row, Run, make_rows, page
from fedmedclip.protocol.errors import FedMedClipError, InvalidInputError
from fedmedclip.protocol.new_files import write_new_file
from fedmedclip.protocol.visible import visible
from fedmedclip.simulation.federation.evaluation import tested
from fedmedclip.simulation.federation.folder import GLOBAL_TEST
from fedmedclip.simulation.federation.run_file import RunFile
from fedmedclip.simulation.federation.run_loop import Job, claim_output, run_missing
from fedmedclip.simulation.federation.source import Source, load_features
from fedmedclip.simulation.newcomer.labels import Labels, parse_labels
from fedmedclip.simulation.newcomer.study import Study
from fedmedclip.simulation.seed_lists import parse_seeds


def main() -> None:
    """Compare and write `one-shot.json` and `one-shot.md` into --out."""
    options = _options()
    try:
        compare_all(options, Console())
    except FedMedClipError as error:
        sys.exit(f"one_shot: {error}")


def compare_all(options: argparse.Namespace, console: Console) -> None:
    """Run what --out does not hold yet, and write every result there. Raises FedMedClipError."""
    budgets, seeds, labels = (
        _budgets(options.budgets),
        parse_seeds(options.seeds),
        parse_labels(options.labels),
    )
    source = Source(options.data, options.bundle, options.features)
    source.check()
    with claim_output(options.out):
        features = load_features(source, options.out, console)
        rows = contenders(features, budgets, options.ours, options.out)
        study = Study(features, "lowrank", 1)
        reference = options.against or next((row.label for row in rows if row.rounds), rows[0].label)
        if reference not in {row.label for row in rows}:
            known = ", ".join(row.label for row in rows)
            raise InvalidInputError(f"--against {reference!r} is no row; there are: {known}")
        runs = RunFile(
            options.out / "runs.jsonl",
            {"features": features.pool.digest.hex()},
            Run,
            key_of=lambda run: run.key,
        )
        keys = [(row, key) for row in rows for key in _keys(row, study, labels, seeds)]
        jobs = {
            key: Job(visible(f"{key.contender}, {key.place}"), max(row.rounds, 1), partial(_run, row, key))
            for row, key in keys
        }
        run_missing(jobs, runs, options.out, console)
        evidence = Evidence(study, {key: runs.runs[key] for _, key in keys})
        _write(options, make_rows(evidence, reference), reference, console)


def _run(row: Contender, key: Key, on_round: Callable[[], None]) -> Run:
    found = row.run(key.case, on_round)
    return Run(key, found.answers, found.uplink_bytes, found.sent_as, row.rounds)


def _keys(row: Contender, study: Study, labels: Sequence[Labels], seeds: Sequence[int]) -> list[Key]:
    """Return whose test images a row answers; what comes to the same federation follows each other."""
    keys = []
    for seed in seeds:
        sites = study.sites(seed)
        if len(sites) < 2:
            raise InvalidInputError("to leave a site out there must be others; give at least 2 sites")
        if study.pool.global_test is not None:
            keys.append(Key(row.label, GLOBAL_TEST, 0, seed))
        keys += [Key(row.label, site.name, number, seed) for site in tested(sites) for number in labels]
    return keys


def _budgets(text: str) -> list[int]:
    """Return the budgets of "900,1460". Raises InvalidInputError for others."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not all(part.isascii() and part.isdigit() and 0 < int(part) < 10**9 for part in parts):
        raise InvalidInputError(f"--budgets {text[:80]!r}: give bytes with commas between them, as 900,1460")
    return [int(part) for part in dict.fromkeys(parts)]


def _write(options: argparse.Namespace, rows: list[Row], reference: str, console: Console) -> None:
    command = shlex.join(["python", "-m", "benchmarks.one_shot.comparison", *sys.argv[1:]])
    written = page(rows, reference, command)
    encoded = msgspec.json.format(
        msgspec.json.encode({"command": command, "reference": reference, "rows": rows}), indent=1
    )
    write_new_file(options.out / "one-shot.json", encoded + b"\n")
    write_new_file(options.out / "one-shot.md", written.encode())
    console.print(written, highlight=False, markup=False, soft_wrap=True)
    console.print(f"{visible(options.out)}: one-shot.json, one-shot.md", highlight=False, markup=False)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.one_shot.comparison",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path)
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--features", type=Path, help="instead of --data and --bundle, as for the benchmarks")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--budgets", default="900,1460", help="bytes of a site's one message")
    parser.add_argument("--labels", default="0,4,all", help="per class, at the site left out; all: a member")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument(
        "--ours",
        nargs="*",
        metavar="METHOD@ROUNDS@CODEC",
        help="methods of the product; one-message, whitened-memory and fedmedclip by default",
    )
    parser.add_argument("--against", help="the row that paired tests are against; the first of ours")
    return parser.parse_args()


if __name__ == "__main__":
    main()
