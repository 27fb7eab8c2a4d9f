"""Predictions as rows of a CSV file or lines of JSON, whatever names the images have.

In CSV, a character of a path that cannot be printed stands as an escape, and no cell is a formula. JSON has
escapes of its own, so there a path is exact; of one that is not UTF-8, `path_bytes` has the bytes in hex.
The classes of a set are joined by | in CSV, and a list in JSON. What there is none of is an empty cell, or
null.
"""

import csv
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, TextIO

import msgspec

from fedmedclip.edge_client.inference.classifier import Prediction
from fedmedclip.edge_client.inference.provenance import Provenance
from fedmedclip.protocol.csv_cells import path_cell, text_cell
from fedmedclip.protocol.visible import is_utf8, visible

_ASSURED = ("outcome", "prediction_set", "distance")

Write = Callable[[Prediction], None]


def csv_writer(file: TextIO, class_names: Sequence[str], provenance: Provenance | None) -> Write:
    """Write the header, with `provenance` a line of # and JSON before it; return what writes a row."""
    if provenance is not None:
        file.write(f"# {_printable_json(provenance)}\n")
    rows = csv.writer(file, lineterminator="\n")
    probabilities = [f"probability_{visible(name)}" for name in class_names]
    rows.writerow(["path", "label", *probabilities, "ensemble_weight", *_ASSURED, "milliseconds"])

    def write(prediction: Prediction) -> None:
        rows.writerow(
            [
                path_cell(visible(prediction.path)),
                text_cell(visible(prediction.label or "")),
                *prediction.probabilities.values(),
                prediction.ensemble_weight,
                prediction.outcome,
                text_cell(visible("|".join(prediction.prediction_set or ()))),
                prediction.distance,
                prediction.milliseconds,
            ]
        )

    return write


def json_writer(file: TextIO, provenance: Provenance | None) -> Write:
    """Return what writes a JSON object a line, each with its provenance where there is one."""

    def write(prediction: Prediction) -> None:
        row: dict[str, Any] = asdict(prediction)
        path = prediction.path or ""
        if not is_utf8(path):
            row |= {"path": visible(path), "path_bytes": os.fsencode(path).hex()}
        if provenance is not None:
            row["provenance"] = provenance
        file.write(f"{_printable_json(row)}\n")

    return write


def _printable_json(value: object) -> str:
    """Return JSON in which all that a terminal might obey is escaped."""
    encoded = msgspec.json.encode(value).decode()
    return encoded if encoded.isprintable() else "".join(map(_escaped, encoded))


def _escaped(character: str) -> str:
    if character.isprintable():
        return character
    return f"\\u{ord(character):04x}" if ord(character) < 0x10000 else json.dumps(character)[1:-1]
