"""What is explained: images of no site, each content once, and a head that sites have trained together."""

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fedmedclip.edge_client.features.extraction import extract_features
from fedmedclip.edge_client.features.feature_store import FeatureStore
from fedmedclip.edge_client.features.labelled import group_dataset
from fedmedclip.edge_client.heads.heads_file import Heads
from fedmedclip.edge_client.images.dataset import load_dataset
from fedmedclip.edge_client.images.opening import UnreadableImageError
from fedmedclip.edge_client.images.reading import decode_images
from fedmedclip.edge_client.inference.regions import Pixels
from fedmedclip.protocol.bundle.bundle import Bundle
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.simulation.federation.folder import GLOBAL_TEST, open_federation_folder
from fedmedclip.simulation.federation.pool_groups import naming_in
from fedmedclip.simulation.federation.simulate import simulate


@dataclass(frozen=True)
class ExplainedImages:
    """Images uint8 (height, width, 3) as the encoder takes them, labels (N,) and groups (N,) int64."""

    pixels: list[Pixels]
    labels: npt.NDArray[np.int64]
    groups: npt.NDArray[np.int64]

    def some(self, count: int | None, seed: int = 0) -> "ExplainedImages":
        """Return so many of them, drawn by a seed; all with None."""
        chosen = np.sort(np.random.default_rng(seed).permutation(len(self.pixels))[:count])
        return ExplainedImages(
            [self.pixels[row] for row in chosen.tolist()], self.labels[chosen], self.groups[chosen]
        )


def global_test_images(data: Path, bundle: Bundle, store: Path) -> ExplainedImages:
    """Return the global test of a folder of sites: images that no site has trained on.

    Raises InvalidInputError when the folder has none.
    """
    folder = open_federation_folder(data)
    if folder.global_test is None:
        raise InvalidInputError(f"{data} has no {GLOBAL_TEST}")
    names = bundle.manifest.class_names
    dataset = load_dataset(folder.global_test, names, minimum_per_class=1)
    with closing(FeatureStore(store)) as opened:
        found = extract_features([image.path for image in dataset.images], bundle, opened)
        grouping = group_dataset(dataset, found, opened, naming=naming_in(folder, GLOBAL_TEST))
    first = {content: row for row, content in reversed(list(enumerate(found.content_hashes)))}
    rows = sorted(first.values())
    labels = [names.index(dataset.images[found.positions[row]].label) for row in rows]
    pixels = []
    with closing(decode_images([found.paths[row] for row in rows], bundle.manifest.preprocessing)) as decoded:
        for image in decoded:
            if isinstance(image, UnreadableImageError):
                raise image
            pixels.append(image.pixels)
    return ExplainedImages(pixels, np.array(labels, np.int64), grouping.rows[rows])


def trained_head(data: Path, bundle: Bundle, method: str, work: Path, rounds: int | None) -> Heads:
    """Return the shared head of a federation of the folder's sites, as a clinic gets it; seed 0."""
    result = simulate(data, bundle.folder, method=method, rounds=rounds, work=work)
    return Heads(method, result.heads[0].shared, None, "benchmark", "", len(result.rounds))
