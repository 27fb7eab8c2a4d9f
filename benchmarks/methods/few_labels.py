"""What adapting to a new hospital's images brings: without labels, with some that are chosen, with random.

    python -m benchmarks.methods.few_labels --data FOLDER --bundle BUNDLE --work FOLDER

Each hospital in turn is left out of a federation of `one-message`, whose statistics are pooled exactly, and
adapts to its training images; its test images are the test. The global test, its copies left out, adapts to
itself, and is tested on what has no label. `--features` takes a pool of embeddings in place of `--data`,
without either the phantoms are made. Prints a table of accuracies in per cent, means of sites and seeds.
"""

import argparse
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.console import Console

from fedmedclip.edge_client.adaptation.medoids import choose_medoids
from fedmedclip.edge_client.heads.heads import predict_probabilities
from fedmedclip.edge_client.heads.scanner_offset import NOT_LABELLED
from fedmedclip.edge_client.learning.methods.one_message import shared_statistics
from fedmedclip.edge_client.learning.own_images import OwnImages
from fedmedclip.edge_client.learning.version_head import adapted
from fedmedclip.protocol.heads.head import NamedArrays
from fedmedclip.protocol.heads.shared_heads import initial_shared_head
from fedmedclip.simulation.federation.feature_pool import FeaturePool
from fedmedclip.simulation.federation.source import Source, load_features

METHOD = "one-message"
_DRAWS = 3

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Newcomer:
    """A federation's shared head, the images that a place adapts to, and the test.

    `test` is None where that are the images without a label.
    """

    shared: NamedArrays
    images: OwnImages
    truth: Integers
    test: tuple[Floats, Integers] | None


def hospitals(pool: FeaturePool, seed: int) -> Iterator[Newcomer]:
    """Yield each hospital, with the federation of the others."""
    sites = pool.deal(seed).sites
    sent = [_statistics(pool, site.train, seed) for site in sites]
    for left_out, site in enumerate(sites):
        others = [number for number in range(len(sites)) if number != left_out]
        shared = _pooled([sent[number] for number in others], [len(sites[number].train) for number in others])
        images = OwnImages.of(pool.embeddings[site.train], None, pool.groups[site.train])
        test = pool.embeddings[site.test], pool.labels[site.test]
        yield Newcomer(shared, images, pool.labels[site.train], test)


def global_test(pool: FeaturePool, seed: int) -> Iterator[Newcomer]:
    """Yield the global test, with the federation of all hospitals."""
    if pool.global_test is None:
        return
    sites = pool.deal(seed).sites
    shared = _pooled(
        [_statistics(pool, site.train, seed) for site in sites], [len(site.train) for site in sites]
    )
    rounded = np.round(pool.global_test.embeddings.astype(np.float64), 4)
    _, rows = np.unique(rounded, axis=0, return_index=True)
    groups = None if pool.global_groups is None else pool.global_groups[rows]
    images = OwnImages.of(pool.global_test.embeddings[rows], None, groups)
    yield Newcomer(shared, images, pool.global_test.labels[rows], None)


def accuracies(pool: FeaturePool, newcomer: Newcomer, seed: int, labels: int) -> Iterator[tuple[str, float]]:
    """Yield ways to come by a head, and the share of the test that it answers rightly."""
    count = len(newcomer.truth)
    nothing = np.empty(0, np.int64)
    everything, none = np.ones(count, bool), np.zeros(count, bool)
    chosen = choose_medoids(newcomer.images.embeddings, labels, newcomer.images.groups, everything, none)
    yield "zero-shot", _accuracy(pool, newcomer, nothing, seed, zero_shot=True)
    yield "no labels", _accuracy(pool, newcomer, nothing, seed)
    yield f"{labels} chosen labels", _accuracy(pool, newcomer, chosen, seed)
    for draw in range(_DRAWS):
        drawn = np.random.default_rng([seed, draw]).permutation(count)[:labels]
        yield f"{labels} random labels", _accuracy(pool, newcomer, drawn, seed)


def _accuracy(
    pool: FeaturePool, newcomer: Newcomer, labelled: Integers, seed: int, zero_shot: bool = False
) -> float:
    labels = np.full(len(newcomer.truth), NOT_LABELLED)
    labels[labelled] = newcomer.truth[labelled]
    images = OwnImages.of(newcomer.images.embeddings, labels, newcomer.images.groups)
    made = adapted(METHOD, newcomer.shared, images, pool.class_embeddings, pool.logit_scale, seed)
    unseen = (images.embeddings[~images.labelled], newcomer.truth[~images.labelled])
    embeddings, truth = newcomer.test or unseen
    found = predict_probabilities(
        METHOD, newcomer.shared, made.private, embeddings, pool.class_embeddings, pool.logit_scale
    )
    answers = found.zero_shot if zero_shot else found.ensemble
    return float((answers.argmax(axis=1) == truth).mean())


def _statistics(pool: FeaturePool, rows: Integers, seed: int) -> NamedArrays:
    zero = initial_shared_head(METHOD, pool.embedding_size, 0, len(pool.class_embeddings))
    own = OwnImages.of(pool.embeddings[rows], pool.labels[rows], pool.groups[rows])
    return shared_statistics(zero, own, pool.class_embeddings, pool.logit_scale, seed)


def _pooled(sent: list[NamedArrays], images: list[int]) -> NamedArrays:
    return {
        name: np.average([part[name].astype(np.float64) for part in sent], axis=0, weights=images).astype(
            np.float32
        )
        for name in sent[0]
    }


def main() -> None:
    """Adapt and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path)
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--features", type=Path, help="a pool of embeddings (.npz)")
    parser.add_argument("--work", type=Path, required=True, help="keeps the embeddings")
    parser.add_argument("--labels", type=int, default=16)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    source = Source(options.data, options.bundle, options.features)
    source.check()
    pool = load_features(source, options.work, Console(stderr=True), reference=False).pool
    for place, newcomers in (("hospitals", hospitals), ("global test", global_test)):
        found: dict[str, list[float]] = defaultdict(list)
        for seed in options.seeds:
            for newcomer in newcomers(pool, seed):
                for way, accuracy in accuracies(pool, newcomer, seed, options.labels):
                    found[way].append(accuracy)
        if place == "hospitals":
            print(f"| | {' | '.join(found)} |")
            print(f"|---{'|---:' * len(found)}|")
        print(f"| {place} | {' | '.join(f'{100 * np.mean(values):.1f}' for values in found.values())} |")


if __name__ == "__main__":
    main()
