"""FedCOF: covariances for free, from class means alone.

Goswami et al. 2025, "Covariances for Free: Exploiting Mean Distributions for Training-free Federated
Learning" (NeurIPS; arXiv 2412.14326). A site k sends the mean m_kc of each class that it has and the number
n_kc of its images. If a class's images are spread over the sites at random, the mean of n images has the
covariance S_c / n, and so from the K_c means of a class, with mu_c the mean of all of its images,

    S_c = sum_k n_kc (m_kc - mu_c)(m_kc - mu_c)^T / (K_c - 1)

is an unbiased estimate of its covariance. The classifier is Fed3R's ridge regression with

    G = sum_c (N_c - 1) (S_c + gamma I) + N mu mu^T

in place of X^T X, without the scatter between classes, and the sums N_c mu_c: G W = B, each class's weights
divided by their length. With few sites a site sends the means of several parts of its images, so that there
are more of them to estimate from (the paper's several means for each class and client).
"""

from collections.abc import Sequence

import numpy as np

from benchmarks.one_shot.linear import (
    RIDGES,
    Doubles,
    Labels,
    Linear,
    System,
    unit_length,
    without_offsets,
)
from benchmarks.one_shot.peer import Statistics, numbers_of


class FedCOF:
    """`Peer`; the constant is gamma in units of the mean eigenvalue of the scatter within classes.

    The paper's are 1 and 0.1, not in units.
    """

    name = "FedCOF"
    has_matrix = False
    parts = True

    def of_site(self, embeddings: Doubles, labels: Labels, classes: int, parts: int) -> Statistics:
        """See `Peer`: means (C * parts, D), class by class, and the numbers (C,).

        Images are dealt to a class's parts in turn; a part without images has a mean of 0.
        """
        means = np.zeros((classes, parts, embeddings.shape[1]))
        for label in range(classes):
            members = embeddings[labels == label]
            for part in range(min(parts, len(members))):
                means[label, part] = members[part::parts].mean(axis=0)
        counts = np.bincount(labels, minlength=classes).astype(np.int64)
        return Statistics({"means": means.reshape(-1, means.shape[2])}, counts)

    def classifiers(self, sites: Sequence[Statistics]) -> dict[float, Linear]:
        """See `Peer`; of a class with one mean there is no covariance."""
        means, numbers = means_by_class(sites)
        of_class = numbers.sum(axis=1)
        sums = (numbers[:, :, None] * means).sum(axis=1)
        centre = sums.sum(axis=0) / of_class.sum()
        scatter = np.zeros((means.shape[2], means.shape[2]))
        for label, images in enumerate(of_class):
            scatter += max(images - 1, 0) * class_covariance(means[label], numbers[label])
        unit = float(np.trace(scatter)) / len(scatter)
        system = System(scatter + of_class.sum() * np.outer(centre, centre))
        return {gamma: without_offsets(unit_length(system.solve(sums.T, gamma * unit).T)) for gamma in RIDGES}


def class_covariance(means: Doubles, numbers: Doubles) -> Doubles:
    """Return the estimate (D, D) of a class's covariance from means (K, D) of so many images (K,) each."""
    there = numbers > 0
    if there.sum() < 2:
        return np.zeros((means.shape[1], means.shape[1]))
    means, numbers = means[there], numbers[there]
    offsets = means - np.average(means, axis=0, weights=numbers)
    covariance: Doubles = (offsets * numbers[:, None]).T @ offsets / (len(numbers) - 1)
    return covariance


def means_by_class(sites: Sequence[Statistics]) -> tuple[Doubles, Doubles]:
    """Return all means (C, K, D) and of how many images each is, (C, K); K counts sites and their parts."""
    all_means, all_numbers = [], []
    for site in sites:
        counts = numbers_of(site)
        classes = len(counts)
        means = site.arrays["means"].reshape(classes, -1, site.arrays["means"].shape[1])
        parts = means.shape[1]
        all_means.append(means)
        # Dealt in turn: the first parts have one more.
        all_numbers.append((counts[:, None] + parts - 1 - np.arange(parts)) // parts)
    return np.concatenate(all_means, axis=1), np.concatenate(all_numbers, axis=1).astype(np.float64)
