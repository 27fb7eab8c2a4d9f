"""Fed3R: ridge regression from sums.

Fani, Camoriano, Caputo and Ciccone 2024, "Accelerating Heterogeneous Federated Learning with Closed-form
Classifiers" (ICML). Of a site with embeddings X (n, D) and one-hot labels Y (n, C) the server gets

    A_k = X^T X,    b_k = X^T Y,

adds each up over the sites, solves (A + lambda I) W = b, and divides each class's weights by their length.
The sums are those of all images in one place, so the solution is too, whoever has which image.
"""

from collections.abc import Sequence

from benchmarks.one_shot.linear import (
    RIDGES,
    Doubles,
    Labels,
    Linear,
    System,
    summed,
    unit_length,
    without_offsets,
)
from benchmarks.one_shot.peer import Statistics, one_hot


class Fed3R:
    """`Peer`; the constant is lambda in units of A's mean eigenvalue (the paper's: 0.01, not in units)."""

    name = "Fed3R"
    has_matrix = True
    parts = False

    def of_site(self, embeddings: Doubles, labels: Labels, classes: int, parts: int) -> Statistics:
        """See `Peer`: A (D, D) and the transpose of b, (C, D)."""
        del parts
        targets = one_hot(labels, classes)
        return Statistics(
            {"A": embeddings.T @ embeddings, "b": targets.T @ embeddings}, symmetric=frozenset("A")
        )

    def classifiers(self, sites: Sequence[Statistics]) -> dict[float, Linear]:
        """See `Peer`."""
        system = System(summed([site.arrays["A"] for site in sites]))
        sides = summed([site.arrays["b"] for site in sites]).T
        return {
            ridge: without_offsets(unit_length(system.solve(sides, ridge * system.mean).T))
            for ridge in RIDGES
        }
