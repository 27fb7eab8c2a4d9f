"""docs/results/export_coverage.md, made of the results of the coverage run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

INTRODUCTION = """# Which of open_clip's models can be exported

Random weights, fixed seed; each error is the largest difference in one value of embeddings of unit length
between ONNX Runtime and open_clip on PyTorch. Images are not square and go through each model's own
preprocessing; texts have three lengths. int8 is the least cosine with per-tensor weights. Spread is one minus
the largest cosine between two different images or texts: a comparison of embeddings that are all alike would
be worth nothing. Made by

    OMP_NUM_THREADS=1 python -m benchmarks.encoder.export_coverage

with `transformers` 5.23 (seconds of a busy machine, one thread; they say little).
"""
HEADER = (
    "| model | M parameters | image error | text error | int8 cosine | spread: image, text | seconds |\n"
    "|---|---|---|---|---|---|---|\n"
)


def write_table(results: Mapping[str, Mapping[str, Any]], parameters: Mapping[str, int], path: Path) -> None:
    """Write the table of all models, with the reasons of those that could not be exported."""
    exported = {name: found for name, found in results.items() if found["status"] == "ok"}
    lines = [_line(name, exported[name]) for name in sorted(exported, key=str.lower)]
    summary = f"\n{len(exported)} of {len(parameters)} models, both towers:\n\n"
    text = INTRODUCTION + summary + HEADER + "".join(lines)
    if failed := {name: found["reason"] for name, found in results.items() if found["status"] != "ok"}:
        text += "\n## Not exported\n\n| model | why |\n|---|---|\n"
        text += "".join(f"| {name} | {failed[name]} |\n" for name in sorted(failed, key=str.lower))
    if untried := sorted(parameters.keys() - results.keys(), key=str.lower):
        text += "\n## Not tried yet\n\nWith M parameters: "
        text += ", ".join(f"{name} ({parameters[name] / 1e6:.0f})" for name in untried) + ".\n"
    path.write_text(text, encoding="utf-8")


def _line(name: str, found: Mapping[str, Any]) -> str:
    cosine = "no products" if found["int8_cosine"] is None else f"{found['int8_cosine']:.5f}"
    return (
        f"| {name} | {found['parameters'] / 1e6:.0f} | {found['image_max_abs_error']:.1e} "
        f"| {found['text_max_abs_error']:.1e} | {cosine} "
        f"| {found['image_spread']:.3f}, {found['text_spread']:.3f} | {found['seconds']:.0f} |\n"
    )
