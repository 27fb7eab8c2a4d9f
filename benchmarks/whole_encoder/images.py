"""The images behind a pool of features, decoded once, in the pool's order: what a whole encoder trains on."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from fedmedclip.edge_client.images.dataset import LabelledImage, load_dataset
from fedmedclip.edge_client.images.opening import UnreadableImageError
from fedmedclip.edge_client.images.reading import DecodedImage, decode_images
from fedmedclip.protocol.bundle.bundle import Manifest
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.simulation.federation.feature_pool import FeaturePool
from fedmedclip.simulation.federation.folder import open_federation_folder


@dataclass(frozen=True)
class PoolImages:
    """Images uint8 (N, 3, height, width), cropped and resized, and those of the global test, if any."""

    sites: Tensor
    global_test: Tensor | None


def images_of_pool(data: Path, manifest: Manifest, pool: FeaturePool) -> PoolImages:
    """Return the images of a folder of sites in the order of the pool that was made of it.

    Images are found by the SHA-256 of their files. Raises InvalidInputError when the folder is not the
    pool's.
    """
    folder = open_federation_folder(data)
    row_of = {content: row for row, content in enumerate(pool.content_hashes)}
    found: dict[int, Tensor] = {}
    for path in folder.sites.values():
        for _, image in _decoded(path, manifest):
            row = row_of.get(image.content_hash)
            if row is not None and row not in found:
                found[row] = _tensor(image)
    if len(found) != len(row_of):
        raise InvalidInputError(
            f"data {data}: {len(row_of) - len(found)} of the images that features were computed of are "
            "missing; give another --out"
        )
    sites = torch.stack([found[row] for row in range(len(row_of))])
    if folder.global_test is None or pool.global_test is None:
        return PoolImages(sites, None)
    tested = list(_decoded(folder.global_test, manifest))
    labels = [manifest.class_names.index(labelled.label) for labelled, _ in tested]
    if labels != pool.global_test.labels.tolist():
        raise InvalidInputError(
            f"data {folder.global_test}: its images are not those that features were computed of; "
            "give another --out"
        )
    return PoolImages(sites, torch.stack([_tensor(image) for _, image in tested]))


def _decoded(path: Path, manifest: Manifest) -> Iterator[tuple[LabelledImage, DecodedImage]]:
    """Yield each image that can be read, as `extract_features` takes them."""
    images = load_dataset(path, manifest.class_names, minimum_per_class=1).images
    outcomes = decode_images([image.path for image in images], manifest.preprocessing)
    for labelled, outcome in zip(images, outcomes, strict=True):
        if not isinstance(outcome, UnreadableImageError):
            yield labelled, outcome


def _tensor(image: DecodedImage) -> Tensor:
    return torch.from_numpy(image.pixels).permute(2, 0, 1).contiguous()
