"""Federations played to their end: the heads of each site as the site would write them, with its images."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fedmedclip.edge_client.heads.assurance import AssuranceSettings
from fedmedclip.edge_client.heads.assuring import GroupedImages, ReferenceImages, assured
from fedmedclip.edge_client.heads.heads import ensemble_of
from fedmedclip.edge_client.heads.heads_file import Heads
from fedmedclip.edge_client.inference.evaluation import evaluate
from fedmedclip.protocol.bundle.bundle import Bundle
from fedmedclip.protocol.heads.heads_file import Judgement
from fedmedclip.simulation.federation.feature_pool import FeaturePool
from fedmedclip.simulation.federation.simulate import simulate

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Member:
    """A site of a played federation: its heads, judged but not calibrated, and its images in three parts."""

    name: str
    heads: Heads
    train: GroupedImages
    validation: GroupedImages
    test: GroupedImages
    reference: ReferenceImages

    def assured(self, bundle: Bundle, settings: AssuranceSettings) -> Heads:
        """Return the heads as the site's guard writes them with these settings."""
        return assured(self.heads, bundle, self.validation, self.reference, settings)


@dataclass(frozen=True)
class Federation:
    """The members of one seed's federation, and its shared head without any private one."""

    method: str
    seed: int
    members: tuple[Member, ...]
    shared: Heads


def played(
    pool: FeaturePool, bundle: Bundle, method: str, seeds: list[int], work: Path
) -> Iterator[Federation]:
    """Yield a method's federation of the natural sites for each seed, of its usual rounds and codec."""
    result = simulate(pool, method=method, seed=seeds, work=work)
    classes = len(pool.class_embeddings)
    for seed in seeds:
        found = result.heads[seed]
        members = []
        for site in pool.deal(seed).sites:
            private = found.private[site.name] or None
            heads = Heads(method, found.shared, private, "bench", site.name, 1, ensemble_of(method))
            train, validation, test = (
                _images(pool, part) for part in (site.train, site.validation, site.test)
            )
            figures = evaluate(heads, bundle, validation.embeddings, validation.labels)
            scores = figures["ensemble"].balanced_accuracy, figures["zero_shot"].balanced_accuracy
            judged = replace(heads, judgement=Judgement(len(validation.labels), *scores))
            reference = ReferenceImages(train, classes)
            members.append(Member(site.name, judged, train, validation, test, reference))
        yield Federation(method, seed, tuple(members), Heads(method, found.shared, None, "bench", "", 1))


def global_test(pool: FeaturePool) -> GroupedImages:
    """Return the images of no site, whose scanners no site has. Raises SystemExit where there are none."""
    if pool.global_test is None:
        raise SystemExit("the data have no global_test")
    return GroupedImages.of(pool.global_test.embeddings, pool.global_test.labels, pool.global_groups)


def _images(pool: FeaturePool, rows: Indices) -> GroupedImages:
    return GroupedImages.of(pool.embeddings[rows], pool.labels[rows], pool.groups[rows])
