"""What the benchmark learns from: the embeddings of all sites, computed once, in memory."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fedmedclip.edge_client.features.extraction import extract_features, summarize_skipped
from fedmedclip.edge_client.features.feature_store import FeatureStore
from fedmedclip.edge_client.features.labelled import LabelledFeatures, group_dataset
from fedmedclip.edge_client.images.dataset import load_dataset
from fedmedclip.edge_client.images.split import DEFAULT_FRACTIONS, Part
from fedmedclip.protocol.bundle.bundle import Bundle
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.simulation.federation.folder import GLOBAL_TEST, FederationFolder, open_federation_folder
from fedmedclip.simulation.federation.pool_groups import PoolGroups, naming_in
from fedmedclip.simulation.federation.virtual_sites import (
    Images,
    VirtualSites,
    dirichlet_sites,
    natural_sites,
)

_REQUIRED = ("embeddings", "labels", "sites", "class_embeddings", "logit_scale")
_OPTIONAL = ("groups", "global_embeddings", "global_labels", "global_groups")


@dataclass(frozen=True)
class FeaturePool:
    """Embeddings float32 (N, D) of N different images, labels int64 (N,), and where each image comes from.

    `content_hashes` has the SHA-256 of each image, `sites` int64 (N,) indices into `site_names`. Images with
    equal numbers in `groups` int64 (N,) are of one patient, or look alike. `class_embeddings` float32 (C, D)
    are unit rows; `global_test` are images of no site, `global_groups` int64 their groups. `notes` are lines
    for a person. `digest` names all of it: equal digests give equal results.
    """

    embeddings: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    content_hashes: tuple[bytes, ...]
    sites: npt.NDArray[np.int64]
    groups: npt.NDArray[np.int64]
    site_names: tuple[str, ...]
    class_embeddings: npt.NDArray[np.float32]
    logit_scale: float
    global_test: LabelledFeatures | None
    global_groups: npt.NDArray[np.int64] | None = None
    notes: tuple[str, ...] = ()

    @property
    def embedding_size(self) -> int:
        """D."""
        return int(self.embeddings.shape[1])

    def deal(
        self,
        seed: int,
        sites: int | None = None,
        alpha: float = 0.5,
        fractions: Mapping[Part, float] = DEFAULT_FRACTIONS,
    ) -> VirtualSites:
        """Return the sites of a seed with their splits: the natural ones, or so many dealt out with `alpha`.

        Raises InvalidInputError as `natural_sites` and `dirichlet_sites` do.
        """
        images = Images(self.labels, self.groups, self.content_hashes)
        if sites is None:
            return natural_sites(images, self.sites, self.site_names, seed, fractions)
        return dirichlet_sites(images, sites, alpha, seed, fractions)

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 of everything that can change a result."""
        digest = hashlib.sha256(repr((self.site_names, self.logit_scale)).encode())
        arrays: list[npt.NDArray[Any]] = [
            self.embeddings, self.labels, self.sites, self.groups, self.class_embeddings
        ]  # fmt: skip
        if self.global_test is not None:
            arrays += [self.global_test.embeddings, self.global_test.labels]
        if self.global_groups is not None:
            arrays.append(self.global_groups)
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
    groups = PoolGroups(store, progress)
    embeddings, labels, sites, kept = [], [], [], []
    hashes: dict[bytes, None] = {}
    notes: list[str] = []
    seen = 0
    for number, (site, path) in enumerate(folder.sites.items()):
        dataset = load_dataset(path, names, minimum_per_class=1)
        found = extract_features([image.path for image in dataset.images], bundle, store, progress=progress)
        if found.skipped:
            notes.append(f"{site}: {summarize_skipped(found.skipped)}")
        groups.add(site, dataset, found, naming_in(folder, site))
        for row, position in enumerate(found.positions):
            seen += 1
            if found.content_hashes[row] in hashes:
                continue
            kept.append(seen - 1)
            hashes[found.content_hashes[row]] = None
            embeddings.append(found.embeddings[row])
            labels.append(names.index(dataset.images[position].label))
            sites.append(number)
    if not embeddings:
        raise InvalidInputError(f"data {data} has no image that can be read")
    if seen > len(kept):
        notes.append(f"{seen - len(kept)} copies of another image left out")
    global_test, global_groups = None, None
    if folder.global_test is not None:
        global_test, global_groups = _global_test(folder, folder.global_test, bundle, store)
    return FeaturePool(
        np.stack(embeddings),
        np.array(labels, dtype=np.int64),
        tuple(hashes),
        np.array(sites, dtype=np.int64),
        groups.numbers(kept),
        tuple(folder.sites),
        bundle.class_embeddings,
        bundle.manifest.logit_scale,
        global_test,
        global_groups,
        (*notes, *groups.notes),
    )


def pool_of_file(path: Path) -> FeaturePool:
    """Read features from a `.npz` file instead of images.

    It holds `embeddings` float32 (N, D), `labels` (N,), `sites` (N,) numbers of the natural sites,
    `class_embeddings` float32 (C, D) unit rows, `logit_scale`, and optionally `groups` (N,),
    `global_embeddings`, `global_labels` and `global_groups`: without them every image is its own group.
    Raises InvalidInputError when it does not.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in (*_REQUIRED, *_OPTIONAL) if name in file}
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"features {path} cannot be read ({error}); give a .npz file") from error
    if missing := [name for name in _REQUIRED if name not in arrays]:
        raise InvalidInputError(f"features {path} lack the arrays {', '.join(missing)}")
    embeddings, captions = _matrix(arrays["embeddings"], path), _matrix(arrays["class_embeddings"], path)
    labels, sites = arrays["labels"].astype(np.int64), arrays["sites"].astype(np.int64)
    _check(path, embeddings, labels, captions)
    if sites.shape != labels.shape or sites.min() < 0:
        raise InvalidInputError(f"features {path}: `sites` must be one number from 0 for each image")
    groups = _groups(arrays, "groups", len(labels), path)
    global_test = global_groups = None
    if "global_embeddings" in arrays:
        if "global_labels" not in arrays:
            raise InvalidInputError(f"features {path} have global_embeddings but no global_labels")
        global_test = LabelledFeatures(
            _matrix(arrays["global_embeddings"], path), arrays["global_labels"].astype(np.int64)
        )
        _check(path, global_test.embeddings, global_test.labels, captions)
        global_groups = _groups(arrays, "global_groups", len(global_test.labels), path)
    return FeaturePool(
        embeddings,
        labels,
        tuple(
            hashlib.sha256(b"%d:" % row + vector.tobytes()).digest() for row, vector in enumerate(embeddings)
        ),
        sites,
        groups,
        tuple(f"site-{number}" for number in range(int(sites.max()) + 1)),
        captions,
        float(arrays["logit_scale"]),
        global_test,
        global_groups,
    )


def _groups(
    arrays: Mapping[str, npt.NDArray[np.generic]], name: str, images: int, path: Path
) -> npt.NDArray[np.int64]:
    """Return an array of a file, as numbers from 0; without it every image is a group."""
    if name not in arrays:
        return np.arange(images)
    if arrays[name].shape != (images,):
        raise InvalidInputError(f"features {path}: `{name}` must have one value for each of {images} images")
    numbers: npt.NDArray[np.int64] = np.unique(arrays[name], return_inverse=True)[1].astype(np.int64)
    return numbers


def _global_test(
    folder: FederationFolder, path: Path, bundle: Bundle, store: FeatureStore
) -> tuple[LabelledFeatures, npt.NDArray[np.int64]]:
    """Return the features of the images of no site, and their groups."""
    dataset = load_dataset(path, bundle.manifest.class_names, minimum_per_class=1)
    found = extract_features([image.path for image in dataset.images], bundle, store)
    if not found.positions:
        raise InvalidInputError(
            f"data {path} has no image that can be read: {summarize_skipped(found.skipped)}"
        )
    labels = [
        bundle.manifest.class_names.index(dataset.images[position].label) for position in found.positions
    ]
    grouping = group_dataset(dataset, found, store, naming=naming_in(folder, GLOBAL_TEST))
    return LabelledFeatures(found.embeddings, np.array(labels, dtype=np.int64)), grouping.rows


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
