"""What the benchmark learns from: the embeddings of all sites, computed once, in memory."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedmedclip.edge_client.features.extraction import extract_features, summarize_skipped
from fedmedclip.edge_client.features.feature_store import FeatureStore
from fedmedclip.edge_client.features.labelled import LabelledFeatures, load_labelled_features
from fedmedclip.edge_client.images.dataset import load_dataset
from fedmedclip.protocol.bundle.bundle import Bundle
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.simulation.federation.folder import open_federation_folder
from fedmedclip.simulation.federation.virtual_sites import VirtualSites, dirichlet_sites, natural_sites

_REQUIRED = ("embeddings", "labels", "sites", "class_embeddings", "logit_scale")
_GLOBAL = ("global_embeddings", "global_labels")


@dataclass(frozen=True)
class FeaturePool:
    """Embeddings float32 (N, D) of N different images, labels int64 (N,), and where each image comes from.

    `content_hashes` has the SHA-256 of each image, `sites` int64 (N,) indices into `site_names`.
    `class_embeddings` float32 (C, D) are unit rows; `global_test` are images of no site. `notes` are lines
    for a person. `digest` names all of it: equal digests give equal results.
    """

    embeddings: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    content_hashes: tuple[bytes, ...]
    sites: npt.NDArray[np.int64]
    site_names: tuple[str, ...]
    class_embeddings: npt.NDArray[np.float32]
    logit_scale: float
    global_test: LabelledFeatures | None
    notes: tuple[str, ...] = ()

    @property
    def embedding_size(self) -> int:
        """D."""
        return int(self.embeddings.shape[1])

    def deal(self, seed: int, sites: int | None = None, alpha: float = 0.5) -> VirtualSites:
        """Return the sites of a seed with their splits: the natural ones, or so many dealt out with `alpha`.

        Raises InvalidInputError as `natural_sites` and `dirichlet_sites` do.
        """
        if sites is None:
            return natural_sites(self.labels, self.content_hashes, self.sites, self.site_names, seed)
        return dirichlet_sites(self.labels, self.content_hashes, sites, alpha, seed)

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 of everything that can change a result."""
        digest = hashlib.sha256(repr((self.site_names, self.logit_scale)).encode())
        arrays: list[npt.NDArray[Any]] = [self.embeddings, self.labels, self.sites, self.class_embeddings]
        if self.global_test is not None:
            arrays += [self.global_test.embeddings, self.global_test.labels]
        for array in arrays:
            digest.update(repr(array.shape).encode())
            digest.update(np.ascontiguousarray(array).data)
        digest.update(b"".join(self.content_hashes))
        return digest.digest()


def pool_of_folder(
    data: Path, bundle: Bundle, store: FeatureStore, progress: Callable[[int, int], None] | None = None
) -> FeaturePool:
    """Return the features of a folder of sites, encoding only what the store lacks.

    An image that occurs more than once, at whatever sites, counts once, at the first of them by name: a
    re-split would otherwise put copies into one site's training and another's test split.

    Raises InvalidInputError for unusable data, BundleError and StorageError as `extract_features` does.
    """
    folder = open_federation_folder(data)
    names = bundle.manifest.class_names
    embeddings, labels, sites = [], [], []
    hashes: dict[bytes, None] = {}
    notes: list[str] = []
    copies = 0
    for number, (site, path) in enumerate(folder.sites.items()):
        dataset = load_dataset(path, names, minimum_per_class=1)
        found = extract_features([image.path for image in dataset.images], bundle, store, progress=progress)
        if found.skipped:
            notes.append(f"{site}: {summarize_skipped(found.skipped)}")
        for row, position in enumerate(found.positions):
            if found.content_hashes[row] in hashes:
                copies += 1
                continue
            hashes[found.content_hashes[row]] = None
            embeddings.append(found.embeddings[row])
            labels.append(names.index(dataset.images[position].label))
            sites.append(number)
    if not embeddings:
        raise InvalidInputError(f"data {data} has no image that can be read")
    if copies:
        notes.append(f"{copies} copies of another image left out")
    return FeaturePool(
        np.stack(embeddings),
        np.array(labels, dtype=np.int64),
        tuple(hashes),
        np.array(sites, dtype=np.int64),
        tuple(folder.sites),
        bundle.class_embeddings,
        bundle.manifest.logit_scale,
        None if folder.global_test is None else _labelled(folder.global_test, bundle, store),
        tuple(notes),
    )


def pool_of_file(path: Path) -> FeaturePool:
    """Read features from a `.npz` file instead of images.

    It holds `embeddings` float32 (N, D), `labels` (N,), `sites` (N,) numbers of the natural sites,
    `class_embeddings` float32 (C, D) unit rows, `logit_scale`, and optionally `global_embeddings` and
    `global_labels`. Raises InvalidInputError when it does not.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in (*_REQUIRED, *_GLOBAL) if name in file}
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"features {path} cannot be read ({error}); give a .npz file") from error
    if missing := [name for name in _REQUIRED if name not in arrays]:
        raise InvalidInputError(f"features {path} lack the arrays {', '.join(missing)}")
    embeddings, captions = _matrix(arrays["embeddings"], path), _matrix(arrays["class_embeddings"], path)
    labels, sites = arrays["labels"].astype(np.int64), arrays["sites"].astype(np.int64)
    _check(path, embeddings, labels, captions)
    if sites.shape != labels.shape or sites.min() < 0:
        raise InvalidInputError(f"features {path}: `sites` must be one number from 0 for each image")
    global_test = None
    if "global_embeddings" in arrays:
        if "global_labels" not in arrays:
            raise InvalidInputError(f"features {path} have global_embeddings but no global_labels")
        global_test = LabelledFeatures(
            _matrix(arrays["global_embeddings"], path), arrays["global_labels"].astype(np.int64)
        )
        _check(path, global_test.embeddings, global_test.labels, captions)
    return FeaturePool(
        embeddings,
        labels,
        tuple(
            hashlib.sha256(b"%d:" % row + vector.tobytes()).digest() for row, vector in enumerate(embeddings)
        ),
        sites,
        tuple(f"site-{number}" for number in range(int(sites.max()) + 1)),
        captions,
        float(arrays["logit_scale"]),
        global_test,
    )


def _labelled(path: Path, bundle: Bundle, store: FeatureStore) -> LabelledFeatures:
    embeddings, labels, _ = load_labelled_features(path, bundle, store)
    return LabelledFeatures(embeddings, labels)


def _matrix(array: npt.NDArray[np.generic], path: Path) -> npt.NDArray[np.float32]:
    if array.ndim != 2 or array.dtype != np.float32 or array.size == 0 or not np.isfinite(array).all():
        raise InvalidInputError(f"features {path}: embeddings must be finite float32 (images, values)")
    return array.astype(np.float32, copy=False)


def _check(
    path: Path,
    embeddings: npt.NDArray[np.float32],
    labels: npt.NDArray[np.int64],
    captions: npt.NDArray[np.float32],
) -> None:
    if embeddings.shape[1] != captions.shape[1] or labels.shape != (len(embeddings),):
        raise InvalidInputError(
            f"features {path}: embeddings {embeddings.shape}, labels {labels.shape} and class embeddings "
            f"{captions.shape} do not fit together"
        )
    if labels.min() < 0 or labels.max() >= len(captions):
        raise InvalidInputError(f"features {path}: labels must be from 0 to {len(captions) - 1}")
