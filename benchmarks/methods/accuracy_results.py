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
from fedmedclip.simulation.accuracy.results import SITES, MethodResult
from fedmedclip.simulation.accuracy.settings import AccuracySettings
from fedmedclip.simulation.federation.folder import GLOBAL_TEST
from fedmedclip.simulation.federation.source import Source

RESULTS = Path("docs/results")
OURS, PAPERS = "whitened-memory", "fedmedclip"
MARGIN = 0.05


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
    verdicts = "## Goals\n\n" + "\n".join(f"- {line}" for line in goals(content)) + "\n\n"
    (pages / f"accuracy-{name}.md").write_text(before + verdicts + heading + after, encoding="utf-8")


def goals(content: Content) -> list[str]:
    """Return each goal with the figures that meet or miss it."""
    methods = {result.label: result for result in content.methods}
    papers, ours = methods[PAPERS], methods[OURS]
    lines = []
    for other, may_equal in (("zero-shot", False), ("fedclip", False), ("local-only", True)):
        gaps = [points(papers, methods[other], site) for site in content.site_names]
        met = all(gap > 0 or (may_equal and gap == 0) for gap in gaps)
        wanted = "not below" if may_equal else "above"
        numbers = ", ".join(f"{gap:+.1f}" for gap in gaps)
        lines.append(verdict(met, f"{PAPERS}'s ensemble {wanted} {other} at every site: {numbers} points"))
    found = content.comparisons[SITES][OURS]
    lines.append(
        verdict(
            found.significant and found.difference > 0,
            f"{OURS} significantly above {PAPERS} on the sites' tests: {100 * found.difference:+.1f} points "
            f"({100 * found.low:+.1f} to {100 * found.high:+.1f}), p = {found.p_corrected:.2g} after Holm",
        )
    )
    if GLOBAL_TEST not in content.comparisons:
        return lines
    blind = [result for result in content.methods if "-global" not in result.label and result is not ours]
    best = max(blind, key=best_global)
    own = ours.scores[GLOBAL_TEST]["shared"]["accuracy"].mean
    gap = 100 * (own - best_global(best))
    sent = f"{ours.bytes_per_round:,.0f} bytes per round, {PAPERS} {papers.bytes_per_round:,.0f}"
    met = gap >= 100 * MARGIN and ours.bytes_per_round <= papers.bytes_per_round
    lines.append(
        verdict(
            met,
            f"{OURS}'s shared head at least 5 points above everything else that sees nothing of the global "
            f"test, at no more bytes: {100 * own:.1f} %, best other {best.label} "
            f"{100 * best_global(best):.1f} %, {gap:+.1f} points; {sent}",
        )
    )
    seeing = [result for result in content.methods if "-global" in result.label]
    numbers = ", ".join(f"{result.label} {100 * best_global(result):.1f} %" for result in seeing)
    if seeing:
        lines.append(f"With unlabelled embeddings or statistics of the global test shared: {numbers}.")
    return lines


def verdict(met: bool, text: str) -> str:
    """Return the line of one goal."""
    return f"**{'met' if met else 'not met'}**: {text}."


def points(one: MethodResult, other: MethodResult, test_set: str) -> float:
    """Return the difference of two methods' mean accuracy on a test set, in points."""
    first, second = one.headline(test_set), other.headline(test_set)
    assert first is not None
    assert second is not None
    return round(100 * (first.mean - second.mean), 2)


def best_global(result: MethodResult) -> float:
    """Return the best that a method makes of the global test: its shared head, or its sites' ensembles."""
    table = result.scores[GLOBAL_TEST]
    return max(table[name]["accuracy"].mean for name in ("shared", "ensemble") if name in table)


if __name__ == "__main__":
    main()
