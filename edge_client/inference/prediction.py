"""`fedmedclip predict`: image files in, one row each out, offline and without PyTorch."""

import csv
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

import msgspec
import numpy as np

from fedmedclip.edge_client.features.encoder import Encoder
from fedmedclip.edge_client.features.extraction import SkippedImage, refuse_skipped, summarize_skipped
from fedmedclip.edge_client.features.new_prompts import open_with_prompts
from fedmedclip.edge_client.features.opening import open_with_encoder
from fedmedclip.edge_client.heads.classification import predict, zero_shot
from fedmedclip.edge_client.heads.heads_file import Heads, load_heads
from fedmedclip.edge_client.images.dataset import list_images
from fedmedclip.edge_client.images.opening import UnreadableImageError
from fedmedclip.edge_client.images.readers.settings import DEFAULT_READING, ReaderSettings
from fedmedclip.edge_client.images.reading import DecodedImage, decode_images
from fedmedclip.edge_client.progress import progress_bar
from fedmedclip.protocol.bundle.bundle import Bundle
from fedmedclip.protocol.errors import InvalidInputError

_BATCH = 16


@dataclass(frozen=True)
class Prediction:
    """One image's result: the ensemble's where there is a private head, else the best that there is.

    `ensemble_weight` is the private head's share in it. `milliseconds` is the image's share of the time for
    its batch: reading, encoding, classifying.
    """

    path: str
    label: str
    probabilities: dict[str, float]
    ensemble_weight: float
    milliseconds: float


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
    together = len(images) == 1
    if prompts_file is None:
        bundle, encoder = open_with_encoder(bundle_folder, threads, together=together)
    else:
        bundle = open_with_prompts(bundle_folder, prompts_file, heads_file, threads)
        encoder = Encoder(bundle, threads, together=together)
    skipped: list[SkippedImage] = []
    with encoder, _opened(output) as file, progress_bar("classifying") as progress:
        heads = None if heads_file is None else load_heads(heads_file, bundle)
        write = _writer(output_format, file, bundle.manifest.class_names)
        for prediction in predict_images(images, encoder, bundle, heads, skipped, progress, settings):
            write(prediction)
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


def predict_images(
    paths: Sequence[Path],
    encoder: Encoder,
    bundle: Bundle,
    heads: Heads | None,
    skipped: list[SkippedImage],
    progress: Callable[[int, int], None] = lambda done, total: None,
    settings: ReaderSettings = DEFAULT_READING,
) -> Iterator[Prediction]:
    """Yield a prediction per readable image, in order; the others are added to `skipped`.

    Without heads the predictions are zero-shot. Few images are in memory at a time.
    """
    started = time.perf_counter()
    done = 0
    with closing(decode_images(paths, bundle.manifest.preprocessing, settings)) as images:
        for batch in _batches(images, skipped):
            predictions = _classify(batch, encoder, bundle, heads)
            now = time.perf_counter()
            milliseconds = round((now - started) * 1000 / len(batch), 3)
            started = now
            for path, label, probabilities, weight in predictions:
                yield Prediction(path, label, probabilities, weight, milliseconds)
            done += len(batch)
            progress(done + len(skipped), len(paths))


def _batches(
    images: Iterator[DecodedImage | UnreadableImageError], skipped: list[SkippedImage]
) -> Iterator[list[DecodedImage]]:
    batch: list[DecodedImage] = []
    for image in images:
        if isinstance(image, UnreadableImageError):
            skipped.append(SkippedImage(image.path, image.reason))
            continue
        batch.append(image)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _classify(
    batch: list[DecodedImage], encoder: Encoder, bundle: Bundle, heads: Heads | None
) -> Iterator[tuple[str, str, dict[str, float], float]]:
    embeddings = encoder.encode(np.stack([image.pixels for image in batch]))
    if heads is None:
        probabilities, weights = zero_shot(bundle, embeddings), np.zeros(len(batch), np.float32)
    else:
        found = predict(heads, bundle, embeddings)
        probabilities, weights = found.ensemble, found.ensemble_weight
    names = bundle.manifest.class_names
    for image, row, weight in zip(batch, probabilities, weights, strict=True):
        by_class = {name: round(float(value), 6) for name, value in zip(names, row, strict=True)}
        yield str(image.path), names[int(row.argmax())], by_class, round(float(weight), 6)


def _writer(output_format: str, file: IO[str], class_names: list[str]) -> Callable[[Prediction], None]:
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
