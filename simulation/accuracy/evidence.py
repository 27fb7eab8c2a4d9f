"""What figures are made from: finished runs, and the images, labels and groups that they are tested on."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from fedmedclip.simulation.accuracy.cases import Case
from fedmedclip.simulation.accuracy.runs import Run
from fedmedclip.simulation.federation.feature_pool import FeaturePool
from fedmedclip.simulation.federation.folder import GLOBAL_TEST
from fedmedclip.simulation.federation.virtual_sites import VirtualSites

SITES = "sites"
HEADLINE = {SITES: "ensemble", GLOBAL_TEST: "shared"}
"""What a method is judged by: at a site by all that it has there, elsewhere by what it shares."""

Integers = npt.NDArray[np.int64]
Probabilities = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Evidence:
    """Finished runs by (case identity, seed), and what they were made from: `sites` by seed."""

    pool: FeaturePool
    class_names: tuple[str, ...]
    seeds: tuple[int, ...]
    sites: Mapping[int, VirtualSites]
    runs: Mapping[tuple[str, int], Run]

    def of(self, case: Case) -> list[Run]:
        """Return a case's runs, one per seed."""
        return [self.runs[case.identity, seed] for seed in self.seeds]

    def images(self, part: str, seed: int, left_out: str | None = None) -> tuple[Integers, Integers]:
        """Return the groups of a part's images, equal numbers for one group, and their labels."""
        if part.startswith(GLOBAL_TEST):
            images = self.pool.global_test
            assert images is not None
            return self._global_groups, images.labels
        site = next(site for site in self.sites[seed].sites if site.name == part)
        chosen = site.test if left_out is None else site.images
        return self.pool.groups[chosen], self.pool.labels[chosen]

    @cached_property
    def _global_groups(self) -> Integers:
        """Groups of the global test, those with a common embedding joined: copies need not be named."""
        images, groups = self.pool.global_test, self.pool.global_groups
        assert images is not None
        _, copies = np.unique(images.embeddings, axis=0, return_inverse=True)
        return copies.ravel().astype(np.int64) if groups is None else joined(groups, copies.ravel())

    def probabilities(self, run: Run, part: str, classifier: str) -> Probabilities | None:
        """Return float32 (images, classes), None where the method has no such classifier."""
        return run.probabilities(part, classifier, len(self.class_names))

    def pooled(self, case: Case, test_set: str) -> tuple[Probabilities, Integers, Integers]:
        """Return the headline's probabilities, labels and groups over all seeds (and all sites)."""
        rows: list[tuple[Probabilities, Integers, Integers]] = []
        for run in self.of(case):
            for part in test_parts(run, test_set):
                found = self.probabilities(run, part, HEADLINE[test_set])
                assert found is not None
                groups, labels = self.images(part, run.seed)
                rows.append((found, labels, groups))
        return (
            np.concatenate([row[0] for row in rows]),
            np.concatenate([row[1] for row in rows]),
            np.concatenate([row[2] for row in rows]),
        )


def test_parts(run: Run, test_set: str) -> list[str]:
    """Return a run's parts that make up a test set: `sites`, `global_test`, or one site."""
    match test_set:
        case "sites":
            return [part for part in run.parts if not part.startswith(GLOBAL_TEST)]
        case _:
            return [part for part in run.parts if part == test_set]


def joined(groups: Integers, others: Integers) -> Integers:
    """Return groups (N,) in which whoever shares either of the two groups (N,) is together."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    _, first = np.unique(groups, return_inverse=True)
    _, second = np.unique(others, return_inverse=True)
    size = int(first.max()) + int(second.max()) + 2
    edges = coo_matrix((np.ones(len(first)), (first, first.max() + 1 + second)), shape=(size, size))
    _, components = connected_components(edges, directed=False)
    found: Integers = components[first].astype(np.int64)
    return found
