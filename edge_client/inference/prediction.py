"""`fedmedclip predict`: image files in, one row each out, offline and without PyTorch."""

import csv
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import IO

import msgspec

from fedmedclip.edge_client.features.extraction import SkippedImage, refuse_skipped, summarize_skipped
from fedmedclip.edge_client.images.dataset import list_images
from fedmedclip.edge_client.images.readers.settings import DEFAULT_READING, ReaderSettings
from fedmedclip.edge_client.inference.classifier import Prediction, load
from fedmedclip.edge_client.progress import progress_bar
from fedmedclip.protocol.errors import InvalidInputError


def run_prediction(
    paths: list[str],
    bundle_folder: Path,
    heads_file: Path | None,
    output_format: str,
    output: Path | None,
    threads: int | None,
    settings: ReaderSettings = DEFAULT_READING,
    strict: bool = False,
    prompts_file: Path | None = None,
) -> None:
    """Classify images and write the rows as they come; skipped images are listed on standard error.

    With a `prompts_file` the classes are its own, zero-shot. Raises InvalidInputError when nothing matches,
    no image at all could be read, or with `strict` any cannot.
    """
    images = list_images(paths, settings)
    skipped: list[SkippedImage] = []
    with (
        load(
            bundle_folder, heads_file, prompts=prompts_file, threads=threads, once=len(images) == 1
        ) as classifier,
        _opened(output) as file,
        progress_bar("classifying") as progress,
    ):
        if classifier.heads is not None and classifier.heads.lack_private_head:
            print(f"{heads_file}: no private head; the shared head answers alone", file=sys.stderr)
        write = _writer(output_format, file, classifier.class_names)
        for done, prediction in enumerate(classifier.predict_files(images, skipped, settings), start=1):
            write(prediction)
            progress(done + len(skipped), len(images))
            if strict:
                refuse_skipped(skipped)
        if strict:
            refuse_skipped(skipped)
    for image in skipped:
        print(f"skipped {image.path}: {image.reason}", file=sys.stderr)
    if skipped:
        print(summarize_skipped(skipped), file=sys.stderr)
    if len(skipped) == len(images):
        raise InvalidInputError("no image could be read; nothing was classified")


def _writer(output_format: str, file: IO[str], class_names: Sequence[str]) -> Callable[[Prediction], None]:
    if output_format == "jsonl":
        return lambda prediction: print(msgspec.json.encode(asdict(prediction)).decode(), file=file)
    rows = csv.writer(file, lineterminator="\n")
    rows.writerow(
        ["path", "label", *(f"probability_{name}" for name in class_names), "ensemble_weight", "milliseconds"]
    )

    def write(prediction: Prediction) -> None:
        rows.writerow(
            [
                prediction.path,
                prediction.label,
                *prediction.probabilities.values(),
                prediction.ensemble_weight,
                prediction.milliseconds,
            ]
        )

    return write


@contextmanager
def _opened(output: Path | None) -> Iterator[IO[str]]:
    """Give standard output, or a file that appears under its name only when it is complete."""
    if output is None:
        yield sys.stdout
        return
    partial = output.with_name(f".{output.name}.partial")
    try:
        with partial.open("w", encoding="utf-8", newline="") as file:
            yield file
        partial.replace(output)
    finally:
        partial.unlink(missing_ok=True)
