"""Whether one method is better than another on the same images, by groups of look-alikes."""

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from benchmarks.whole_encoder.federation import Round
from benchmarks.whole_encoder.results import Sites, classes_of
from fedmedclip.protocol.seeds import derive_seed
from fedmedclip.simulation.accuracy.significance import Comparison, compare, compare_balanced, holm
from fedmedclip.simulation.federation.feature_pool import FeaturePool
from fedmedclip.simulation.federation.folder import GLOBAL_TEST

LastRounds = Mapping[tuple[str, int], Round]
"""By method and seed."""
Integers = npt.NDArray[np.int64]

SITES = "sites"
ACCURACY, BALANCED = "accuracy", "balanced accuracy"


class Versus(msgspec.Struct, frozen=True):
    """A method against a reference on one test set, over the seeds that both have.

    Images of all sites and seeds are taken together; in balanced accuracy each class of each site counts
    alike.
    """

    method: str
    reference: str
    test_set: str
    metric: str
    seeds: tuple[int, ...]
    found: Comparison


def comparisons(
    last_rounds: LastRounds,
    sites: Sites,
    pool: FeaturePool,
    methods: Sequence[str],
    references: Sequence[str],
) -> list[Versus]:
    """Compare each method with each reference on each test set and by each metric.

    Holm's correction is over the methods that are compared with one reference so.
    """
    found: list[Versus] = []
    for reference in references:
        for test_set in (SITES, GLOBAL_TEST) if pool.global_test is not None else (SITES,):
            seeds_of = {
                method: tuple(
                    seed for seed in sites if {(method, seed), (reference, seed)} <= last_rounds.keys()
                )
                for method in methods
                if method != reference
            }
            for metric in (ACCURACY, BALANCED):
                compared = {
                    method: _compare(last_rounds, sites, pool, (method, reference), test_set, metric, seeds)
                    for method, seeds in seeds_of.items()
                    if seeds
                }
                found += [
                    Versus(method, reference, test_set, metric, seeds_of[method], comparison)
                    for method, comparison in holm(compared).items()
                ]
    return found


def _compare(
    last_rounds: LastRounds,
    sites: Sites,
    pool: FeaturePool,
    pair: tuple[str, str],
    test_set: str,
    metric: str,
    seeds: Sequence[int],
) -> Comparison:
    labels, groups, cells = _tested(sites, pool, test_set, seeds)
    right, other = (
        np.concatenate([_said(last_rounds[method, seed], test_set, sites, seed) for seed in seeds]) == labels
        for method in pair
    )
    bootstrap = derive_seed(0, purpose=f"bootstrap of {pair[0]} against {pair[1]} on {test_set}")
    if metric == BALANCED:
        return compare_balanced(right, other, groups, cells, bootstrap)
    return compare(right, other, groups, bootstrap)


def _tested(
    sites: Sites, pool: FeaturePool, test_set: str, seeds: Sequence[int]
) -> tuple[Integers, Integers, Integers]:
    """Return of a test set's images under these seeds, in the order of `_said`, their labels and groups.

    Last comes what counts alike in balanced accuracy: the label, or the label at that site.
    """
    if test_set == GLOBAL_TEST:
        assert pool.global_test is not None
        assert pool.global_groups is not None
        labels = np.tile(pool.global_test.labels, len(seeds))
        return labels, np.tile(pool.global_groups, len(seeds)), labels
    images = np.concatenate([site.test for seed in seeds for site in sites[seed]])
    labels = pool.labels[images]
    return labels, pool.groups[images], pool.sites[images] * len(pool.class_embeddings) + labels


def _said(one: Round, test_set: str, sites: Sites, seed: int) -> npt.NDArray[np.uint8]:
    parts = [GLOBAL_TEST] if test_set == GLOBAL_TEST else [site.name for site in sites[seed]]
    return np.concatenate([classes_of(one, part) for part in parts])
