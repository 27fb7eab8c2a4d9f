"""AFL: each site solves for itself, and the solutions add up to that of all images.

He et al. 2025, "AFL: A Single-Round Analytic Approach for Federated Learning with Pre-trained Models" (CVPR;
arXiv 2405.16240). A site with embeddings X (n, D) and one-hot labels Y (n, C) sends

    C_k = X^T X + gamma I,    W_k = C_k^-1 X^T Y.

The absolute aggregation law makes one solution of two: W = V_1 W_1 + V_2 W_2 with
V_1 = I - C_1^-1 C_2 + C_1^-1 C_2 (C_1 + C_2)^-1 C_2, which is (C_1 + C_2)^-1 C_1, and so for V_2; its
matrix is C_1 + C_2. After K sites the server takes out what gamma left in it: (C - K gamma I)^-1 C W.
"""

from collections.abc import Sequence
from functools import reduce

import numpy as np

from benchmarks.one_shot.linear import RIDGES, Doubles, Labels, Linear, System, without_offsets
from benchmarks.one_shot.peer import Statistics, one_hot

GAMMA = 1.0
"""The paper's: any value gives the same in the end, but for rounding."""


class AFL:
    """`Peer`; the constant is a ridge that stays in the end, in units of the matrix's mean eigenvalue.

    The paper's is 0: least squares without a ridge, which needs many more images than dimensions.
    """

    name = "AFL"
    has_matrix = True
    parts = False

    def of_site(self, embeddings: Doubles, labels: Labels, classes: int, parts: int) -> Statistics:
        """See `Peer`: C (D, D) and the transpose of W, (C, D)."""
        del parts
        matrix = embeddings.T @ embeddings + GAMMA * np.eye(embeddings.shape[1])
        weights = System(matrix).solve(embeddings.T @ one_hot(labels, classes), 0.0)
        return Statistics({"C": matrix, "W": weights.T}, symmetric=frozenset("C"))

    def classifiers(self, sites: Sequence[Statistics]) -> dict[float, Linear]:
        """See `Peer`."""
        matrix, weights = reduce(aggregate, [(site.arrays["C"], site.arrays["W"].T) for site in sites])
        system = System(matrix - len(sites) * GAMMA * np.eye(len(matrix)))
        sides = matrix @ weights
        return {
            ridge: without_offsets(system.solve(sides, ridge * system.mean).T) for ridge in (0.0, *RIDGES)
        }


def aggregate(first: tuple[Doubles, Doubles], second: tuple[Doubles, Doubles]) -> tuple[Doubles, Doubles]:
    """Return matrix (D, D) and weights (D, C) of two sites together, by the absolute aggregation law."""
    matrix = first[0] + second[0]
    return matrix, System(matrix).solve(first[0] @ first[1] + second[0] @ second[1], 0.0)
