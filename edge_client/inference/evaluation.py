"""How good zero-shot, shared head, private head and ensemble are on labelled images."""

from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from fedmedclip.edge_client.features.feature_store import FeatureStore
from fedmedclip.edge_client.features.labelled import load_labelled_features
from fedmedclip.edge_client.features.new_prompts import open_with_prompts
from fedmedclip.edge_client.heads.classification import predict, zero_shot
from fedmedclip.edge_client.heads.heads_file import (
    NO_PRIVATE_HEAD,
    ZERO_SHOT_ANSWERS,
    Heads,
    load_trusted_heads,
)
from fedmedclip.edge_client.heads.metrics import Metrics, measure
from fedmedclip.edge_client.heads.selective import SelectiveFigures, measure_selection
from fedmedclip.edge_client.images.readers.settings import DEFAULT_READING, ReaderSettings
from fedmedclip.edge_client.inference.answers import answers_to
from fedmedclip.edge_client.inference.provenance import provenance_of
from fedmedclip.edge_client.inference.selection_table import assurance_table
from fedmedclip.edge_client.progress import progress_bar
from fedmedclip.protocol.bundle.bundle import Bundle
from fedmedclip.protocol.json_output import print_json
from fedmedclip.protocol.new_files import write_new_file
from fedmedclip.protocol.trust.decision import Trust, trust_of_user
from fedmedclip.protocol.visible import visible


def evaluate(
    heads: Heads | None,
    bundle: Bundle,
    embeddings: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int64],
) -> dict[str, Metrics]:
    """Return the metrics of each classifier that there is: `zero_shot` and, with heads, `shared`, `private`
    (where the method has one) and `ensemble`.

    `embeddings` float32 (N, D), `labels` int64 (N,). Raises InvalidInputError when there are no images.
    """
    names = bundle.manifest.class_names
    if heads is None:
        return {"zero_shot": measure(zero_shot(bundle, embeddings), labels, names)}
    predictions = predict(heads, bundle, embeddings)
    found = {
        "zero_shot": predictions.zero_shot,
        "shared": predictions.shared,
        "private": predictions.private,
        "ensemble": predictions.ensemble,
    }
    return {
        name: measure(probabilities, labels, names)
        for name, probabilities in found.items()
        if probabilities is not None
    }


def evaluate_assurance(
    heads: Heads | None,
    bundle: Bundle,
    embeddings: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int64],
) -> SelectiveFigures | None:
    """Return what prediction sets and withheld answers are worth; None without an assurance, or images.

    `embeddings` float32 (N, D), `labels` int64 (N,).
    """
    if heads is None or heads.assurance is None or len(labels) == 0:
        return None
    found = answers_to(heads, bundle, embeddings)
    assert found.sets is not None
    level, names = heads.assurance.metadata.level, bundle.manifest.class_names
    return measure_selection(found.probabilities, labels, found.sets, found.unlike, level, names)


def run_evaluation(
    data: Path,
    bundle_folder: Path,
    heads_file: Path | None,
    output: Path | None,
    threads: int | None,
    settings: ReaderSettings = DEFAULT_READING,
    strict: bool = False,
    prompts_file: Path | None = None,
    trust: Trust | None = None,
    as_json: bool = False,
) -> None:
    """`fedmedclip evaluate`: print tables, or with `as_json` the figures alone, and write these where asked.

    Without `trust`, that of this user holds (`trust_of_user`).

    Raises InvalidInputError for unusable data and, with `strict`, when any image cannot be used.
    """
    with (
        progress_bar("opening the bundle") as progress,
        TemporaryDirectory() as folder,
        FeatureStore(Path(folder) / "features.db") as store,
    ):
        trusted = trust_of_user() if trust is None else trust
        bundle = open_with_prompts(bundle_folder, prompts_file, heads_file, threads, trusted)
        heads = None if heads_file is None else load_trusted_heads(heads_file, bundle, trusted)
        progress(0, 0, "computing features")
        embeddings, labels, found = load_labelled_features(
            data, bundle, store, settings=settings, strict=strict, threads=threads, progress=progress
        )
    figures = evaluate(heads, bundle, embeddings, labels)
    assurance = evaluate_assurance(heads, bundle, embeddings, labels)
    report = {
        "provenance": provenance_of(bundle, heads, heads_file, prompts_file),
        "images": len(labels),
        "skipped": {visible(image.path): image.reason for image in found.skipped},
        "classifiers": {name: metrics.as_dict() for name, metrics in figures.items()},
    }
    if assurance is not None:
        report["assurance"] = assurance.as_dict()
    if as_json:
        print_json(report)
    else:
        lines = [visible(line) for line in found.lines()]
        if heads is not None and heads.lack_private_head:
            lines.append(f"{visible(heads_file)}: {NO_PRIVATE_HEAD}")
        if heads is not None and heads.zero_shot_answers:
            lines.append(f"{visible(heads_file)}: {ZERO_SHOT_ANSWERS}")
        _print_tables(lines, figures, assurance)
    if output is not None:
        write_new_file(output, msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")


def _print_tables(lines: list[str], figures: dict[str, Metrics], assurance: SelectiveFigures | None) -> None:
    console = Console(markup=False)
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)
    console.print(_table(figures))
    if assurance is not None:
        console.print(assurance_table(assurance))
    for name, metrics in figures.items():
        console.print(_class_table(name, metrics))


def _table(figures: dict[str, Metrics]) -> Table:
    table = Table(title=f"{next(iter(figures.values())).images} images")
    table.add_column("classifier")
    for heading in ("accuracy", "balanced", "macro F1", "calibration error"):
        table.add_column(heading, justify="right")
    for name, metrics in figures.items():
        table.add_row(
            name.replace("_", "-"),
            f"{metrics.accuracy:.3f}",
            f"{metrics.balanced_accuracy:.3f}",
            f"{metrics.macro_f1:.3f}",
            f"{metrics.expected_calibration_error:.3f}",
        )
    return table


def _class_table(name: str, metrics: Metrics) -> Table:
    table = Table(title=f"{name.replace('_', '-')}: rows are true classes, columns what they were called")
    table.add_column("class")
    for heading in (*metrics.classes, "precision", "recall"):
        table.add_column(visible(heading), justify="right")
    for (class_name, figures), row in zip(metrics.classes.items(), metrics.confusion, strict=True):
        table.add_row(
            visible(class_name), *map(str, row), f"{figures.precision:.3f}", f"{figures.recall:.3f}"
        )
    return table
