"""`fedmedclip predict`: image files in, one row each out, offline and without PyTorch."""

import csv
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

import msgspec
import numpy as np

from edge_client.dataset import list_images
from edge_client.encoder import Encoder
from edge_client.evaluation import predict, zero_shot
from edge_client.features import encode_images, summarise_skipped
from edge_client.heads_file import Heads, load_heads
from edge_client.images import SkippedImage
from edge_client.progress import progress_bar
from protocol.bundle import Bundle, open_bundle
from protocol.errors import InvalidInputError


@dataclass(frozen=True)
class Prediction:
    """One image's result. `milliseconds` is its share of reading, encoding and classifying its batch."""

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
) -> None:
    """Classify images and write the rows as they come; skipped images are listed on standard error.

    Raises InvalidInputError when nothing matches or no image at all could be read.
    """
    images = list_images(paths)
    bundle = open_bundle(bundle_folder)
    heads = None if heads_file is None else load_heads(heads_file, bundle)
    skipped: list[SkippedImage] = []
    with _opened(output) as file, progress_bar("classifying") as progress:
        writer = _WRITERS[output_format](file, bundle.manifest.class_names)
        predictions = predict_images(images, bundle, heads, skipped, threads)
        for done, prediction in enumerate(predictions, start=1):
            writer.write(prediction)
            progress(done, len(images))
    for image in skipped:
        print(f"skipped {image.path}: {image.reason}", file=sys.stderr)
    if skipped:
        print(summarise_skipped(skipped), file=sys.stderr)
    if len(skipped) == len(images):
        raise InvalidInputError("no image could be read; nothing was classified")
