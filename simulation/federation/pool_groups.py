"""The groups of a pool's images: those that each site would find itself, joined where sites hold copies."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from fedmedclip.edge_client.features.appearances import load_appearances
from fedmedclip.edge_client.features.extraction import FeatureExtraction
from fedmedclip.edge_client.features.feature_store import FeatureStore
from fedmedclip.edge_client.features.labelled import group_dataset
from fedmedclip.edge_client.images.dataset import Dataset
from fedmedclip.edge_client.images.grouping import GroupNaming, numbered
from fedmedclip.edge_client.images.look_alikes import find_look_alikes, group_rows
from fedmedclip.simulation.federation.folder import FederationFolder


def naming_in(folder: FederationFolder, site: str) -> GroupNaming:
    """Return what names the groups of a site: the folder's groups file, or else the site's own."""
    return GroupNaming(file=folder.group_file, key=b"" if folder.group_file else site.encode())


@dataclass
class PoolGroups:
    """Collects the images of sites, and tells their groups when all are there."""

    store: FeatureStore
    progress: Callable[[int, int], None] | None = None
    notes: list[str] = field(default_factory=list)
    _found: list[FeatureExtraction] = field(default_factory=list)
    _named: list[str] = field(default_factory=list)
    _rows: list[int] = field(default_factory=list)

    def add(self, site: str, dataset: Dataset, found: FeatureExtraction, naming: GroupNaming) -> None:
        """Find the groups of a site's images, as that site would.

        Raises InvalidInputError for a groups file that cannot be used, and StorageError.
        """
        grouping = group_dataset(dataset, found, self.store, naming=naming, progress=self.progress)
        start = len(self._rows)
        self._rows += (start + grouping.rows).tolist()
        # What a federation's file names may have images at several sites.
        self._named += [
            "" if source == "look-alike" else name
            for name, source in zip(grouping.names, grouping.sources, strict=True)
        ]
        self._found.append(found)
        labels = [dataset.images[position].label for position in found.positions]
        self.notes += [f"{site}: {line}" for line in grouping.lines(labels)]

    def numbers(self, kept: Sequence[int]) -> npt.NDArray[np.int64]:
        """Return the group of each of the kept images, int64, numbered from 0; `kept` count all that were
        added.
        """
        keys = [key for found in self._found for key in found.keys]
        paths = [path for found in self._found for path in found.paths]
        contents = [content for found in self._found for content in found.content_hashes]
        same = [np.array(self._rows, np.int64), numbered(self._named), numbered(contents)]
        look_alikes = find_look_alikes(load_appearances(keys, paths, self.store))
        rows, _ = group_rows(look_alikes.copies_only(), same)
        numbers: npt.NDArray[np.int64] = np.unique(rows[np.array(kept)], return_inverse=True)[1]
        return numbers.astype(np.int64)
