"""How far classifiers of the sites' frozen embeddings carry to a test of other scanners, none of it seen.

    python -m benchmarks.methods.other_scanners --data FOLDER --bundle BUNDLE --work FOLDER

Each family is fitted on the embeddings of all sites *pooled*, which no federated method can surpass by being
federated. Its settings are chosen in two ways: by leaving one hospital out and testing on it ("chosen"), and
by looking at the labels of the global test ("best": a bound on what any way of choosing could give). The last
row is fitted on half of the global test itself and tested on the other half, five times. Prints a table.
"""

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.console import Console
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedShuffleSplit

from fedmedclip.edge_client.heads.ensemble import softmax
from fedmedclip.simulation.federation.feature_pool import FeaturePool
from fedmedclip.simulation.federation.source import Source, load_features

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]
Fit = Callable[["Training", float], Callable[[Floats], Floats]]
"""(training data, setting) to a classifier: embeddings (n, D) to scores (n, C)."""


class Training:
    """Embeddings (n, D), labels (n,) and sites (n,) of some hospitals, with the bundle's class embeddings."""

    def __init__(self, pool: FeaturePool, chosen: npt.NDArray[np.bool_]) -> None:
        self.embeddings = pool.embeddings[chosen].astype(np.float64)
        self.labels = pool.labels[chosen]
        self.sites = pool.sites[chosen]
        self.texts = pool.class_embeddings.astype(np.float64)
        self.logit_scale = pool.logit_scale

    def zero_shot(self, embeddings: Floats) -> Floats:
        """Return the zero-shot logits (n, C)."""
        logits: Floats = self.logit_scale * embeddings @ self.texts.T
        return logits


def logistic(training: Training, setting: float) -> Callable[[Floats], Floats]:
    """Logistic regression, `setting` its inverse strength of regularisation."""
    model = LogisticRegression(C=setting, max_iter=2000).fit(training.embeddings, training.labels)
    return lambda embeddings: np.asarray(model.decision_function(embeddings))


def discriminant(training: Training, setting: float) -> Callable[[Floats], Floats]:
    """Linear discriminant analysis, `setting` its shrinkage."""
    model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=setting)
    model.fit(training.embeddings, training.labels)
    return lambda embeddings: np.asarray(model.decision_function(embeddings))


def kernel_ridge(training: Training, setting: float) -> Callable[[Floats], Floats]:
    """Ridge regression to one-hot labels; a Gaussian kernel of width `setting` / mean squared distance."""
    distance = 2 * training.embeddings.var(axis=0).sum()
    targets = np.eye(len(training.texts))[training.labels]
    model = KernelRidge(alpha=0.1, kernel="rbf", gamma=setting / distance).fit(training.embeddings, targets)
    return lambda embeddings: np.asarray(model.predict(embeddings))


def memory_beside_zero_shot(training: Training, setting: float) -> Callable[[Floats], Floats]:
    """Tip-Adapter: zero-shot logits plus `setting` times a kernel memory of the training images."""
    memory = kernel_ridge(training, 2.0)
    return lambda embeddings: training.zero_shot(embeddings) + setting * memory(embeddings)


def probe_beside_zero_shot(training: Training, setting: float) -> Callable[[Floats], Floats]:
    """Zero-shot logits plus `setting` times those of a logistic regression."""
    probe = logistic(training, 10.0)
    return lambda embeddings: training.zero_shot(embeddings) + setting * probe(embeddings)


def without_differences_between_sites(training: Training, setting: float) -> Callable[[Floats], Floats]:
    """Logistic regression without the `setting` directions in which the hospitals' classes differ most."""
    means = [
        training.embeddings[(training.sites == site) & (training.labels == label)].mean(axis=0)
        - training.embeddings[training.labels == label].mean(axis=0)
        for site in np.unique(training.sites)
        for label in np.unique(training.labels)
        if ((training.sites == site) & (training.labels == label)).any()
    ]
    directions = np.linalg.svd(np.array(means), full_matrices=False)[2][: int(setting)]

    def project(embeddings: Floats) -> Floats:
        projected: Floats = embeddings - embeddings @ directions.T @ directions
        return projected

    model = LogisticRegression(C=10.0, max_iter=2000).fit(project(training.embeddings), training.labels)
    return lambda embeddings: np.asarray(model.decision_function(project(embeddings)))


def zero_shot_with_a_bias(training: Training, setting: float) -> Callable[[Floats], Floats]:
    """Zero-shot logits plus one number for each class, fitted; `setting` times that."""
    logits = training.zero_shot(training.embeddings)
    bias = np.zeros(logits.shape[1])
    shares = np.bincount(training.labels, minlength=logits.shape[1]) / len(training.labels)
    for _ in range(500):
        bias += np.log(shares + 1e-3) - np.log(softmax(logits + bias).mean(axis=0) + 1e-3)
    return lambda embeddings: training.zero_shot(embeddings) + setting * bias


FAMILIES: dict[str, tuple[Fit, tuple[float, ...]]] = {
    "logistic regression": (logistic, (0.01, 0.1, 1, 10, 100, 1000)),
    "linear discriminant": (discriminant, (0.01, 0.03, 0.1, 0.3, 0.6, 0.9)),
    "Gaussian kernel ridge": (kernel_ridge, (0.1, 0.3, 1, 3, 10)),
    "zero-shot + kernel memory": (memory_beside_zero_shot, (0, 1, 2, 4, 8, 16)),
    "zero-shot + logistic regression": (probe_beside_zero_shot, (0, 0.03, 0.1, 0.3, 1)),
    "without what differs between sites": (without_differences_between_sites, (0, 1, 2, 4, 8)),
    "zero-shot + bias of each class": (zero_shot_with_a_bias, (0, 0.25, 0.5, 0.75, 1)),
}


def main() -> None:
    """Fit and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="keeps the embeddings")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    source = Source(options.data, options.bundle)
    pool = load_features(source, options.work, Console(stderr=True), reference=False).pool
    if pool.global_test is None:
        raise SystemExit(f"{options.data} has no global_test")
    test, truth = pool.global_test.embeddings.astype(np.float64), pool.global_test.labels
    everything = Training(pool, np.ones(len(pool.labels), dtype=bool))
    print("| fitted on the pooled sites | chosen | best on the global test |")
    print("|---|---:|---:|")
    print(f"| zero-shot | {percent(accuracy(everything.zero_shot(test), truth))} | |")
    for name, (fit, settings) in FAMILIES.items():
        found = [accuracy(fit(everything, setting)(test), truth) for setting in settings]
        chosen = int(np.argmax([left_out_accuracy(pool, fit, setting) for setting in settings]))
        print(f"| {name} | {percent(found[chosen])} | {percent(max(found))} |")
    print(f"| logistic regression fitted on the global test | | {percent(own_labels(test, truth))} |")


def left_out_accuracy(pool: FeaturePool, fit: Fit, setting: float) -> float:
    """Return the mean accuracy at each hospital of what was fitted on the others."""
    return float(np.mean(list(_left_out(pool, fit, setting))))


def _left_out(pool: FeaturePool, fit: Fit, setting: float) -> Iterator[float]:
    for site in np.unique(pool.sites):
        held_out = pool.sites == site
        classify = fit(Training(pool, ~held_out), setting)
        yield accuracy(classify(pool.embeddings[held_out].astype(np.float64)), pool.labels[held_out])


def own_labels(embeddings: Floats, labels: Labels) -> float:
    """Return what a probe reaches that saw half of the test with its labels: mean over five halvings."""
    halves = StratifiedShuffleSplit(5, test_size=0.5, random_state=0).split(embeddings, labels)
    return float(
        np.mean(
            [
                LogisticRegression(C=10.0, max_iter=2000)
                .fit(embeddings[seen], labels[seen])
                .score(embeddings[held_out], labels[held_out])
                for seen, held_out in halves
            ]
        )
    )


def accuracy(scores: Floats, labels: Labels) -> float:
    """Return the share of rows whose largest score is the label's."""
    return float((scores.argmax(axis=1) == labels).mean())


def percent(share: float) -> str:
    """Return a share in per cent."""
    return f"{100 * share:.1f}"


if __name__ == "__main__":
    main()
