"""FedCGS: a Gaussian classifier of global feature statistics.

Guan et al. 2025, "Capture Global Feature Statistics for One-Shot Federated Learning" (AAAI). Sites send,
for each class, the sum of embeddings A_c and their number N_c, and over all classes the sum B of x x^T. The
server makes class means mu_c = A_c / N_c, the mean mu of all, and the covariance of all images

    S = (B - N mu mu^T) / (N - 1),

which holds the scatter between classes too, and from them the linear discriminant
x^T S^-1 mu_c - mu_c^T S^-1 mu_c / 2 + log(N_c / N).
"""

from collections.abc import Sequence

import numpy as np

from benchmarks.one_shot.linear import RIDGES, Doubles, Labels, Linear, System, summed
from benchmarks.one_shot.peer import Statistics, numbers_of, one_hot

_NEVER = -1e9


class FedCGS:
    """`Peer`; the constant is what is added to S, in units of its mean eigenvalue (the paper's: 0)."""

    name = "FedCGS"
    has_matrix = True
    parts = False

    def of_site(self, embeddings: Doubles, labels: Labels, classes: int, parts: int) -> Statistics:
        """See `Peer`: A (C, D), B (D, D) and the numbers N (C,)."""
        del parts
        sums = one_hot(labels, classes).T @ embeddings
        counts = np.bincount(labels, minlength=classes).astype(np.int64)
        return Statistics({"A": sums, "B": embeddings.T @ embeddings}, counts, frozenset("B"))

    def classifiers(self, sites: Sequence[Statistics]) -> dict[float, Linear]:
        """See `Peer`; a class that no site has is never the answer."""
        counts = np.sum([numbers_of(site) for site in sites], axis=0).astype(np.float64)
        sums, images = summed([site.arrays["A"] for site in sites]), counts.sum()
        mean = sums.sum(axis=0) / images
        squares = summed([site.arrays["B"] for site in sites])
        system = System((squares - images * np.outer(mean, mean)) / (images - 1))
        means = sums / np.maximum(counts, 1)[:, None]
        prior = np.where(counts > 0, np.log(np.maximum(counts, 1) / images), _NEVER)
        found = {}
        for ridge in (0.0, *RIDGES):
            weights = system.solve(means.T, ridge * system.mean).T
            found[ridge] = Linear(weights, prior - (weights * means).sum(axis=1) / 2)
        return found
