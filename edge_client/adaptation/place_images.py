"""The images of a place that adapts: their embeddings, each image once, and which belong together."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fedmedclip.edge_client.features.extraction import (
    FeatureExtraction,
    Progress,
    SkippedImage,
    extract_features,
    refuse_skipped,
    summarize_skipped,
)
from fedmedclip.edge_client.features.feature_store import FeatureStore
from fedmedclip.edge_client.features.labelled import group_dataset
from fedmedclip.edge_client.heads.scanner_offset import NOT_LABELLED
from fedmedclip.edge_client.images.dataset import Dataset, LabelledImage
from fedmedclip.edge_client.images.grouping import GroupNaming
from fedmedclip.edge_client.images.readers.settings import DEFAULT_READING, ReaderSettings
from fedmedclip.protocol.bundle.bundle import Bundle
from fedmedclip.protocol.errors import InvalidInputError


@dataclass(frozen=True)
class PlaceImages:
    """N different images: paths, embeddings float32 (N, D), labels int64 (N,) with `NOT_LABELLED` for none.

    Equal numbers in `groups` int64 (N,) are of one patient, or look alike; without groups asked for each
    image has its own. `copies` counts further images of the same content, `unread_labels` the labels of
    images that cannot be read.
    """

    paths: tuple[Path, ...]
    embeddings: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    groups: npt.NDArray[np.int64]
    skipped: tuple[SkippedImage, ...]
    copies: int
    unread_labels: int


def read_place_images(
    paths: Sequence[Path],
    labels: npt.NDArray[np.int64],
    bundle: Bundle,
    store: FeatureStore,
    *,
    naming: GroupNaming | None = None,
    settings: ReaderSettings = DEFAULT_READING,
    strict: bool = False,
    threads: int | None = None,
    progress: Progress | None = None,
) -> PlaceImages:
    """Return images with their labels int64 (len(paths),), grouped where `naming` is given.

    Raises InvalidInputError when none can be read, with `strict` any cannot, or copies have two labels;
    BundleError and StorageError as `extract_features` does.
    """
    extraction = extract_features(paths, bundle, store, settings=settings, threads=threads, progress=progress)
    if strict:
        refuse_skipped(extraction.skipped)
    if not extraction.paths:
        raise InvalidInputError(
            f"no image could be read ({summarize_skipped(extraction.skipped)}); nothing was adapted"
        )
    rows = _firsts(extraction.keys)
    groups = np.arange(len(rows), dtype=np.int64)
    if naming is not None:
        together = _groups(paths, extraction, store, naming, settings, progress)
        groups = together[rows]
    return PlaceImages(
        tuple(extraction.paths[row] for row in rows),
        extraction.embeddings[rows],
        _labels_of_contents(labels[extraction.positions], extraction)[rows],
        groups,
        tuple(extraction.skipped),
        len(extraction.keys) - len(rows),
        int((np.delete(labels, extraction.positions) != NOT_LABELLED).sum()),
    )


def _firsts(keys: Sequence[bytes]) -> list[int]:
    """Return the first row of each different key."""
    found: dict[bytes, int] = {}
    for row, key in enumerate(keys):
        found.setdefault(key, row)
    return list(found.values())


def _labels_of_contents(
    labels: npt.NDArray[np.int64], extraction: FeatureExtraction
) -> npt.NDArray[np.int64]:
    """Return labels (N,) in which all copies of an image have the label that any of them has."""
    found: dict[bytes, int] = {}
    for row in np.flatnonzero(labels != NOT_LABELLED).tolist():
        first = found.setdefault(extraction.keys[row], row)
        if labels[first] != labels[row]:
            raise InvalidInputError(
                f"{extraction.paths[first]} and {extraction.paths[row]} are the same image and have two "
                "labels; keep one of them"
            )
    of_contents = [labels[found[key]] if key in found else NOT_LABELLED for key in extraction.keys]
    return np.array(of_contents, dtype=np.int64)


def _groups(
    paths: Sequence[Path],
    extraction: FeatureExtraction,
    store: FeatureStore,
    naming: GroupNaming,
    settings: ReaderSettings,
    progress: Progress | None,
) -> npt.NDArray[np.int64]:
    folder = Path(os.path.commonpath([os.path.abspath(path.parent) for path in paths]))
    images = tuple(LabelledImage(path, path.name, "") for path in paths)
    dataset = Dataset(folder, images, 0, ())
    return group_dataset(dataset, extraction, store, settings=settings, naming=naming, progress=progress).rows
