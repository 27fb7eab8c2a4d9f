"""The training images of a site that are nearest to an image: only at the site that owns them.

Labels and distances come from the site's feature store and the record of its split. No image is decoded and
nothing is encoded or written.
"""

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fedmedclip.edge_client.explanation.site_files import SiteFiles
from fedmedclip.edge_client.features.feature_store import FeatureStore
from fedmedclip.edge_client.heads.layers import unit_rows
from fedmedclip.edge_client.images.dataset import LabelledImage, load_dataset
from fedmedclip.edge_client.images.opening import ImageIdentity
from fedmedclip.edge_client.images.reading import identify_images
from fedmedclip.edge_client.images.split import Part, read_split
from fedmedclip.protocol.bundle.bundle import Bundle
from fedmedclip.protocol.errors import InvalidInputError

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Near:
    """A training image: its label, its cosine distance (0 to 2) and its file, which stays at the site."""

    label: str
    distance: float
    file: Path


class NearestImages:
    """A site's training images by their embeddings, held in memory. Several threads may ask at once."""

    def __init__(self, embeddings: Floats, images: list[LabelledImage]) -> None:
        """`embeddings` float32 (N, D), one for each of the images."""
        self._embeddings = unit_rows(embeddings)
        self._images = images

    def __len__(self) -> int:
        return len(self._images)

    def nearest_to(self, embedding: Floats, count: int = 5) -> list[Near]:
        """Return the nearest images to an embedding, float32 (D,), the nearest first."""
        distances = 1 - self._embeddings @ unit_rows(embedding[None])[0]
        rows = np.argsort(distances, kind="stable")[:count]
        return [
            Near(self._images[row].label, round(max(float(distances[row]), 0.0), 6), self._images[row].path)
            for row in rows.tolist()
        ]


def nearest_images(files: SiteFiles, bundle: Bundle) -> NearestImages:
    """Return the training images of a site whose embeddings by this bundle are in its feature store.

    Of copies the first by name is taken. Raises InvalidInputError when there are none, and for data or a
    record of the split that cannot be used; StorageError when the feature store cannot be read.
    """
    if not files.feature_store.is_file():
        raise InvalidInputError(
            f"{files.configuration}: there is no feature store {files.feature_store}; run "
            "`fedmedclip site` with it once"
        )
    dataset = load_dataset(
        files.data,
        bundle.manifest.class_names,
        minimum_per_class=1,
        settings=files.images,
        group_column=files.group_column,
    )
    parts = {content: part for content, (_, part) in read_split(files.split).items()}
    training: dict[bytes, LabelledImage] = {}
    with closing(identify_images([image.path for image in dataset.images], files.images)) as identities:
        for image, identity in zip(dataset.images, identities, strict=True):
            if isinstance(identity, ImageIdentity) and _part(image, identity, parts) == "train":
                training.setdefault(identity.key, image)
    with closing(FeatureStore(files.feature_store)) as store:
        found = store.get_many(bundle.digest, training)
    known = {key: image for key, image in training.items() if key in found}
    if not known:
        raise InvalidInputError(
            f"{files.configuration}: {files.feature_store} has no training image of this bundle "
            f"({bundle.digest.hex()[:12]}); run `fedmedclip site` with it once, or give the one it has"
        )
    return NearestImages(np.stack([found[key] for key in known]), list(known.values()))


def _part(image: LabelledImage, identity: ImageIdentity, parts: dict[bytes, Part]) -> Part | None:
    return image.part or parts.get(identity.content_hash)
