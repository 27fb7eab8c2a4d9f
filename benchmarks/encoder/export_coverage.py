"""Export every architecture of open_clip with random weights, and compare each with the original.

    OMP_NUM_THREADS=1 python -m benchmarks.encoder.export_coverage [--only NAME ...] [--max-parameters 500]

Both towers of each model are exported and run by ONNX Runtime beside open_clip on PyTorch, on images that
are not square. Results are kept after each model in docs/results/export_coverage.json, from which
docs/results/export_coverage.md is made; a run that was stopped goes on where it was. Models whose text tower
is of Hugging Face's need `transformers`; its configurations are built in, so nothing is downloaded.
"""

import argparse
import json
import multiprocessing
import os
import sys
import traceback
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.encoder.export_coverage_table import write_table
from fedmedclip.export.architectures import counted_parameters
from fedmedclip.export.torchvision_operators import declare_missing_operators

RESULTS = Path("docs/results/export_coverage.json")
IMAGES = Path("../shared/data/brain_tumor/global_test")
# A tower with a larger error is not the one that open_clip has.
LARGEST_ERROR = 1e-4
Results = dict[str, dict[str, Any]]


def main() -> None:
    """Measure what is not measured yet, and write the table."""
    arguments = _arguments()
    results: Results = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    parameters = counted_parameters()
    chosen = [name for name in arguments.only or parameters if arguments.again or name not in results]
    small = [name for name in chosen if parameters[name] <= arguments.max_parameters * 1e6]
    declare_missing_operators()
    # Every child process is a copy of this one, with these modules in it.
    import open_clip  # noqa: F401

    import benchmarks.encoder.export_comparison  # noqa: F401

    columns = (TextColumn("{task.description:32}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=len(small))
        for name in sorted(small, key=parameters.__getitem__):
            progress.update(task, description=name)
            results[name] = _measure_apart(name, arguments.images) | {"parameters": parameters[name]}
            _write(arguments.out, json.dumps(dict(sorted(results.items())), indent=1) + "\n")
            write_table(results, parameters, arguments.out.with_suffix(".md"))
            progress.advance(task)
    write_table(results, parameters, arguments.out.with_suffix(".md"))
    failed = [name for name in small if results[name]["status"] != "ok"]
    print(f"{len(small)} models measured, {len(failed)} not exported: {', '.join(failed) or 'none'}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these models only")
    parser.add_argument(
        "--max-parameters", type=float, default=500.0, metavar="MILLIONS", help="no model larger than this"
    )
    parser.add_argument("--again", action="store_true", help="also measure what was measured before")
    parser.add_argument("--out", type=Path, default=RESULTS, metavar="FILE.json")
    parser.add_argument("--images", type=Path, default=IMAGES if IMAGES.is_dir() else None, metavar="DIR")
    arguments = parser.parse_args()
    if unknown := set(arguments.only or ()) - counted_parameters().keys():
        parser.error(f"open_clip has no model {sorted(unknown)}")
    return arguments


def _measure_apart(name: str, images: Path | None) -> dict[str, Any]:
    """Measure one model in a process of its own, which gives all its memory back when it ends."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_measure, args=(name, images, sender))
    process.start()
    sender.close()
    try:
        found: dict[str, Any] = receiver.recv()
    except EOFError:
        found = {"status": "failed", "reason": "the process was killed; it may need more memory"}
    except KeyboardInterrupt:
        process.kill()
        sys.exit("stopped; the same command goes on from here")
    process.join()
    return found


def _measure(name: str, images: Path | None, sender: Connection) -> None:
    import torch

    from benchmarks.encoder.export_comparison import compare

    # Libraries print notes for their developers, from C++ as well, in the middle of the progress bar.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    torch.set_num_threads(1)
    try:
        found = compare(name, images)
    # Whatever a model raises is a line of the table.
    except Exception as error:
        text = str(error).strip().splitlines() or [type(error).__name__]
        where = traceback.extract_tb(error.__traceback__)[-1]
        reason = f"{text[0][:300]} ({Path(where.filename).name}, line {where.lineno})"
        found = {"status": "failed", "reason": reason}
    errors = (found.get("image_max_abs_error", 0.0), found.get("text_max_abs_error", 0.0))
    if not all(error <= LARGEST_ERROR for error in errors):
        found |= {"status": "inexact", "reason": f"an error above {LARGEST_ERROR:g}"}
    sender.send(found)


def _write(path: Path, text: str) -> None:
    """Replace a file at once: what is there is always whole."""
    partial = path.with_suffix(".partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


if __name__ == "__main__":
    main()
