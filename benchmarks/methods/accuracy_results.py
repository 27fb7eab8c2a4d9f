r"""Run the accuracy comparison and put its Markdown, figures and the goals' verdicts into docs/results.

    python -m benchmarks.methods.accuracy_results brain --out brain \
        --data ../shared/data/brain_tumor --bundle bundle
    python -m benchmarks.methods.accuracy_results phantoms --out phantoms \
        [--quick] [--rounds 30] [--seeds 0,1,2]

From the repository's root. Finished runs in --out are used again. Writes accuracy-NAME.md into --pages
(docs/results), and the figures that it shows into the folder accuracy-NAME there; `report.html` stays in
--out. Rows beside the methods' defaults come from docs/results/accuracy-NAME.toml where there is one; rows
whose names contain `-global` are those that see unlabelled images of the global test.
"""

import argparse
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import msgspec
from rich.console import Console

from fedmedclip.simulation.accuracy.benchmark import run_accuracy
from fedmedclip.simulation.accuracy.content import Content
from fedmedclip.simulation.accuracy.evidence import SITES
from fedmedclip.simulation.accuracy.results import MethodResult
from fedmedclip.simulation.accuracy.settings import AccuracySettings
from fedmedclip.simulation.accuracy.significance import Comparison
from fedmedclip.simulation.federation.folder import GLOBAL_TEST
from fedmedclip.simulation.federation.source import Source

RESULTS = Path("docs/results")
OURS, PAPERS = "whitened-memory", "fedmedclip"


def main() -> None:
    """Run, and write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pages", type=Path, default=RESULTS, help="where page and figures go")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--quick", action="store_true", help="no left-out hospitals, no ablations")
    options = parser.parse_args()
    training = RESULTS / f"accuracy-{options.name}.toml"
    settings = AccuracySettings(
        options.out,
        Source(options.data, options.bundle),
        training=training if training.exists() else None,
        rounds=options.rounds,
        seeds=options.seeds,
        leave_one_out=not options.quick,
        ablations=not options.quick,
    )
    run_accuracy(replace(settings, command=command(settings)), Console())
    content = msgspec.json.decode((options.out / "accuracy.json").read_bytes(), type=Content)
    write_page(options.name, options.out, options.pages, content)


def command(settings: AccuracySettings) -> str:
    """Return what gives the same report by hand."""
    words = ["fedmedclip", "bench", "accuracy"]
    options = {
        "--data": settings.source.data, "--bundle": settings.source.bundle, "--training": settings.training,
        "--rounds": settings.rounds, "--seeds": settings.seeds, "--out": settings.out,
    }  # fmt: skip
    for name, value in options.items():
        words += [] if value is None else [name, str(value)]
    return shlex.join(words + ([] if settings.ablations else ["--quick"]))


def write_page(name: str, out: Path, pages: Path, content: Content) -> None:
    """Write `accuracy-NAME.md` into `pages`, and copy the figures that it shows."""
    figures = pages / f"accuracy-{name}"
    shutil.rmtree(figures, ignore_errors=True)
    shutil.copytree(out / "figures", figures)
    title, *rest = (out / "report.md").read_text(encoding="utf-8").partition("\n\n")
    page = f"{title}: {name}" + "".join(rest).replace("](figures/", f"]({figures.name}/")
    before, heading, after = page.partition("## Summary")
    verdicts = "## What is shown\n\n" + "\n".join(f"- {line}" for line in goals(content)) + "\n\n"
    (pages / f"accuracy-{name}.md").write_text(before + verdicts + heading + after, encoding="utf-8")


def goals(content: Content) -> list[str]:
    """Return what was hoped for, each with the paired test by group that shows it, or does not."""
    methods = {result.label: result for result in content.methods}
    papers, ours = methods[PAPERS], methods[OURS]
    lines = []
    for other in ("zero-shot", "fedclip", "local-only"):
        found = content.comparisons[SITES][other]
        lines.append(
            verdict(found.significant and found.difference < 0, f"{PAPERS} above {other}", found, -1)
        )
    found = content.comparisons[SITES][OURS]
    lines.append(verdict(found.significant and found.difference > 0, f"{OURS} above {PAPERS}", found))
    for label, found in content.beside_alone.items():
        shown = found.significant and found.difference > 0
        lines.append(verdict(shown, f"{label} above itself at each site alone", found))
    if GLOBAL_TEST not in content.comparisons:
        return lines
    found = content.comparisons[GLOBAL_TEST]["zero-shot"]
    shown = found.significant and found.difference < 0
    lines.append(verdict(shown, f"{PAPERS}'s shared head above zero-shot on the global test", found, -1))
    sent = f"{ours.bytes_per_round:,.0f} bytes per round, {PAPERS} {papers.bytes_per_round:,.0f}"
    lines.append(f"Bytes of {OURS}: {sent}.")
    seeing = [result for result in content.methods if "-global" in result.label]
    numbers = ", ".join(f"{result.label} {100 * best_global(result):.1f} %" for result in seeing)
    if seeing:
        lines.append(f"With unlabelled embeddings or statistics of the global test shared: {numbers}.")
    return lines


def verdict(shown: bool, text: str, found: Comparison, sign: int = 1) -> str:
    """Return the line of one question, with what the paired test by group says; `sign` turns it round."""
    low, high = sorted((100 * sign * found.low, 100 * sign * found.high))
    return (
        f"**{'shown' if shown else 'not shown'}**: {text}: {100 * sign * found.difference:+.1f} points "
        f"({low:+.1f} to {high:+.1f}), p = {found.p_corrected:.2g} after Holm."
    )


def best_global(result: MethodResult) -> float:
    """Return the best that a method makes of the global test: its shared head, or its sites' ensembles."""
    table = result.scores[GLOBAL_TEST]
    return max(table[name]["accuracy"].mean for name in ("shared", "ensemble") if name in table)


if __name__ == "__main__":
    main()
