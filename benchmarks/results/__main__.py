r"""Make docs/results again, each result at the commit that is checked out.

    python -m benchmarks.results [--only accuracy-brain,newcomer] [--keep-going]
    python -m benchmarks.results --list
    python -m benchmarks.results --quick --only bandwidth-256

`make results ONLY=...` is the same. A result is made again when the code that it runs, its command, or the
data has changed since; `benchmarks/results/results.toml` has all commands. Killed, the same command goes on.
Beside the pages, docs/results/made/NAME.json keeps the tables of each result with commit, command and
digests; tables in pages stand between `<!-- table: NAME/TABLE -->` and `<!-- end -->` and are filled in from
there.
With --quick every result that has a quick form runs with one seed and few rounds, into a copy of the pages.
"""

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.results.entries import Entry, read_entries, select
from benchmarks.results.index import PAGES, fill_pages
from benchmarks.results.making import Workshop, make
from benchmarks.results.records import read_record
from benchmarks.results.steps import FailedError
from fedmedclip.protocol.errors import FedMedClipError

_DATA, _MODEL = Path("../shared/data/brain_tumor"), Path("../shared/models/bench-clip")


def main() -> None:
    """Do as the options say; exit code 1 where a result could not be made, 2 where nothing could be begun."""
    options = _options()
    try:
        entries = select(read_entries(), options.only)
        workshop = _workshop(options)
        if options.list:
            _list(workshop, entries)
        elif options.fill:
            fill_pages(workshop.pages)
        elif failed := _make_all(workshop, entries, options.keep_going, options.again):
            sys.exit(f"results: not made: {', '.join(failed)}")
    except FailedError as error:
        sys.exit(f"results: {error}")
    except FedMedClipError as error:
        print(f"results: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit("results: stopped; the same command goes on from here")


def _make_all(workshop: Workshop, entries: Sequence[Entry], keep_going: bool, again: bool) -> list[str]:
    """Make what is not up to date, and return the names of what failed."""
    failed = []
    for entry in entries:
        if reason := workshop.why_not(entry):
            print(f"{entry.name}: left out, {reason}", flush=True)
            continue
        state = workshop.state(entry, read_record(workshop.pages, entry.name))
        if state == "up to date" and not again:
            print(f"{entry.name}: {state}", flush=True)
            continue
        print(f"{entry.name}: {state}, takes about {_duration(entry.seconds)}", flush=True)
        try:
            record = make(workshop, entry, again=again)
        except FailedError as error:
            if not keep_going:
                raise
            print(f"results: {error}", file=sys.stderr, flush=True)
            failed.append(entry.name)
            continue
        fill_pages(workshop.pages)
        processor = _duration(record.processor_seconds)
        print(f"{entry.name}: made in {_duration(record.seconds)}, {processor} of processor", flush=True)
    return failed


def _list(workshop: Workshop, entries: Sequence[Entry]) -> None:
    for entry in entries:
        record = read_record(workshop.pages, entry.name)
        reason = workshop.why_not(entry)
        state = f"cannot be made here: {reason}" if reason else workshop.state(entry, record)
        took = "" if record is None else f"took {_duration(record.processor_seconds)} of processor"
        print(f"{entry.name:20} {entry.page:22} {_duration(entry.seconds):>7} {took:>24}  {state}")


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _workshop(options: argparse.Namespace) -> Workshop:
    work = options.work / "quick" if options.quick else options.work
    pages = PAGES
    if options.quick:
        pages = work / "pages"
        # What an earlier try wrote as a whole page stays with its record.
        own = [entry.page for entry in read_entries().values() if entry.whole_page]
        kept = [page for page in own if (pages / page).exists()]
        shutil.copytree(PAGES, pages, dirs_exist_ok=True, ignore=shutil.ignore_patterns("made", *kept))
    return Workshop(
        options.data,
        options.model,
        work,
        pages,
        quick=options.quick,
        network=options.network,
        dirty=options.dirty,
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.results",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", default="", help="names with commas between them; without it all")
    parser.add_argument(
        "--list", action="store_true", help="say what there is, how long it takes, what is due"
    )
    parser.add_argument("--fill", action="store_true", help="only fill in tables of what was made")
    parser.add_argument("--keep-going", action="store_true", help="after a failure go on with the others")
    parser.add_argument("--again", action="store_true", help="also make what is up to date")
    parser.add_argument("--quick", action="store_true", help="try the plumbing, with copies of the pages")
    parser.add_argument("--dirty", action="store_true", help="although the work tree has changes")
    parser.add_argument("--network", action="store_true", help="also what installs packages")
    parser.add_argument("--data", type=Path, default=_DATA)
    parser.add_argument("--model", type=Path, default=_MODEL)
    parser.add_argument("--work", type=Path, default=Path("build/results"), help="keeps what is finished")
    return parser.parse_args()


if __name__ == "__main__":
    main()
