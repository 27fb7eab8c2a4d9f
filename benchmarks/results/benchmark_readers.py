"""What the larger benchmarks wrote, as tables."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import msgspec

from benchmarks.results.markdown_tables import Table, from_rows
from benchmarks.results.text_readers import Tables, under_headings
from fedmedclip.simulation.accuracy.significance import Comparison
from fedmedclip.simulation.bandwidth.results import DEFAULT, PAPERS, UNCOMPRESSED
from fedmedclip.simulation.differences import Difference

_WAYS = ("uplink_bytes_per_round", "downlink_bytes_per_round")
_BRIEF = frozenset(
    {"zero-shot", "local-only", "pooled", "fedclip", "facmic", "faa-clip", "fedmedclip", "whitened-memory"}
)
_CHOSEN_HERE = "†"
_DEMO_KINDS = ("zero_shot", "shared", "private", "ensemble")
_REFERENCES = re.compile(r"plain mean ([\d.]+) %, [^%]*?([\d.]+) %, zero-shot ([\d.]+) %")


def accuracy(out: Path) -> Tables:
    """Return `summary`: accuracy, bytes and what was found; and `brief`, some of its rows, for README.

    Methods whose constants were chosen on this data are marked, as in the report.
    """
    content = _json(out / "accuracy.json")
    with_global = "global_test" in content["comparisons"]
    rows, brief = [], []
    for method in content["methods"]:
        label = method["label"]
        chosen_here = label in content.get("chosen_here", ())
        cells = [f"{label} {_CHOSEN_HERE}" if chosen_here else label, f"{_both_ways(method):,.0f}"]
        cells += [
            _spread(method, "sites", "ensemble", metric) for metric in ("accuracy", "balanced_accuracy")
        ]
        cells.append(_finding(content["comparisons"]["sites"].get(label)))
        cells += [_spread(method, "global_test", "shared")] if with_global else []
        rows.append(cells)
        if label in _BRIEF or label.startswith(("local-only:", "pooled:")):
            brief.append(cells)
    headings = ["method", "bytes a round", "mean of the sites, %", "balanced, %"]
    headings.append(f"beside {content['reference']}, points")
    headings += ["global test, %"] if with_global else []
    return {"summary": from_rows(headings, rows), "brief": from_rows(headings, brief)}


def bandwidth(out: Path) -> Tables:
    """Return `codecs`: a row for each codec of `bandwidth.json`."""
    content = _json(out / "bandwidth.json")
    papers = next((row for row in content["rows"] if row["codec"] == PAPERS), None)
    headings = [
        "codec", "up", "down", "entropy limit", "accuracy %", f"less {UNCOMPRESSED}", "global test %",
        f"less {UNCOMPRESSED}", f"rounds to {100 * content['target']['accuracy']:.1f} %", "s on the link",
        "encode, decode ms", "times fewer bytes than the papers'",
    ]  # fmt: skip
    rows = []
    for row in content["rows"]:
        codec = row["codec"]
        cells = [codec, *(f"{row[name]:,.0f}" for name in (*_WAYS, "entropy_limit_bytes"))]
        cells.append(f"{100 * row['accuracy']:.1f} ± {100 * row['accuracy_std']:.1f}")
        cells.append(_points(content["accuracy_less_uncompressed"], codec))
        on_global = row.get("accuracy_global")
        cells.append("" if on_global is None else f"{100 * on_global:.1f}")
        cells.append(_points(content["accuracy_global_less_uncompressed"], codec))
        cells.append("never" if row["rounds_to_target"] is None else str(row["rounds_to_target"]))
        cells += [f"{row['seconds_on_link']:,.1f}", f"{row['encode_ms']:.1f}, {row['decode_ms']:.1f}"]
        cells.append("" if papers is None else f"{_both_ways(papers) / _both_ways(row):,.1f}")
        rows.append(cells)
    return {"codecs": from_rows(headings, rows)}


def _demo_cells(runs: Sequence[Any], sites: Sequence[str]) -> list[str]:
    found = [run["final"]["sites"][site]["accuracy"] for run in runs for site in sites]
    return [f"{fmean(one[kind] for one in found):.3f}" if kind in found[0] else "" for kind in _DEMO_KINDS]


def _demo_bytes(runs: Sequence[Any]) -> list[str]:
    entries = [site for run in runs for turn in run["rounds"] for site in turn["sites"].values()]
    ways = [fmean(entry[name] for entry in entries) for name in ("uplink_bytes", "downlink_bytes")]
    return [*(f"{way:,.0f}" for way in ways), f"{fmean(sum(run['phases'].values()) for run in runs):.1f}"]


def _spread(method: Mapping[str, Any], test_set: str, classifier: str, metric: str = "accuracy") -> str:
    found = method["scores"].get(test_set, {}).get(classifier, {}).get(metric)
    return "-" if found is None else f"{100 * found['mean']:.1f} ± {100 * found['std']:.1f}"


def _finding(comparison: Mapping[str, Any] | None) -> str:
    """Return a paired comparison in words: better and worse only where the corrected p allows it."""
    if comparison is None:
        return ""
    found = msgspec.convert(comparison, Comparison)
    direction = "better" if found.difference > 0 else "worse"
    finding = direction if found.significant else "no difference shown"
    return f"{100 * found.difference:+.1f}, p = {found.p_corrected:.2g}: {finding}"


def _verdicts(out: Path) -> Table:
    verdicts = _json(out / "robustness.json")["verdicts"]
    rows = [
        [
            str(verdict["sites"]), f"`{verdict['rule']}`", verdict["worst_attack"],
            *(msgspec.convert(verdict[name], Difference).in_points() for name in ("lost", "cost")),
            "yes" if verdict["withstands"] else "no", "yes" if verdict["cheap"] else "no",
        ]
        for verdict in verdicts
    ]  # fmt: skip
    headings = ["sites", "rule", "worst attack", "lost there", "cost", "withstands", "cheap"]
    return from_rows(headings, rows, words=3)


def _both_ways(row: Mapping[str, Any]) -> float:
    return float(sum(row[name] for name in _WAYS))


def _points(differences: Mapping[str, Any], codec: str) -> str:
    if codec == UNCOMPRESSED or codec not in differences:
        return ""
    return msgspec.convert(differences[codec], Difference).in_points()


def _json(path: Path) -> Any:
    return msgspec.json.decode(path.read_bytes())


def robustness(out: Path) -> Tables:
    """Return a table for each heading of `report.md`, `references` (nobody hostile) and `verdicts`."""
    text = (out / "report.md").read_text(encoding="utf-8")
    found = under_headings(out, "report.md")
    sections = re.findall(r"^## (.+)$", text, re.MULTILINE)
    rows = [
        [section, *figures] for section, figures in zip(sections, _REFERENCES.findall(text), strict=False)
    ]
    headings = ["nobody hostile", "plain mean %", "every site for itself %", "zero-shot %"]
    return found | {"references": from_rows(headings, rows), "verdicts": _verdicts(out)}


def demo(out: Path) -> Tables:
    """Return `sites`, `brief` (one row of it) and `bytes` of the summaries `CODEC-SEED/summary.json`."""
    runs: dict[str, list[Any]] = {}
    for file in sorted(out.glob("*-*/summary.json")):
        runs.setdefault(file.parent.name.rpartition("-")[0], []).append(_json(file))
    codecs = sorted(runs, key=lambda codec: (codec != DEFAULT, codec))
    first = runs[codecs[0]]
    sites = list(first[0]["final"]["sites"])
    rows = [[site, *_demo_cells(first, [site])] for site in sites]
    rows.append(["mean of the sites", *_demo_cells(first, sites)])
    rows += [[f"the same with {codec}", *_demo_cells(runs[codec], sites)] for codec in codecs[1:]]
    on_global = [run["final"]["global_test"]["accuracy"] for run in first]
    rows.append(
        ["global test", *(f"{fmean(run[kind] for run in on_global):.3f}" for kind in _DEMO_KINDS[:2]), "", ""]
    )
    headings = ["images of", "zero-shot", "shared head", "private head", "ensemble"]
    return {
        "sites": from_rows(headings, rows),
        "brief": from_rows(headings, rows[len(sites) : len(sites) + 1]),
        "bytes": from_rows(
            ["codec", "bytes sent", "bytes received", "seconds in all"],
            [[codec, *_demo_bytes(runs[codec])] for codec in codecs],
        ),
    }
