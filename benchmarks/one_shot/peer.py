"""What a one-shot method on frozen features is here: what a site sends, and what a server makes of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from benchmarks.one_shot.linear import Doubles, Labels, Linear


@dataclass(frozen=True)
class Statistics:
    """What a site sends: named float arrays, and whole numbers from 0 to 65535, which go as they are.

    Arrays named in `symmetric` are square, symmetric and positive semidefinite.
    """

    arrays: Mapping[str, Doubles]
    counts: Labels | None = None
    symmetric: frozenset[str] = frozenset()


class Peer(Protocol):
    """A published method."""

    @property
    def name(self) -> str:
        """As its paper has it."""

    @property
    def has_matrix(self) -> bool:
        """Whether a symmetric matrix is among what is sent."""

    @property
    def parts(self) -> bool:
        """Whether a site may send the means of several parts of its images."""

    def of_site(self, embeddings: Doubles, labels: Labels, classes: int, parts: int) -> Statistics:
        """Return what a site with these training embeddings (N, D) and labels (N,) sends.

        Means are those of so many `parts` of each class, where the method has means.
        """

    def classifiers(self, sites: Sequence[Statistics]) -> dict[float, Linear]:
        """Return the server's classifier for each value that the method's one constant may have."""


def numbers_of(site: Statistics) -> Labels:
    """Return a site's numbers of images (C,), which its method sends."""
    assert site.counts is not None
    return site.counts


def one_hot(labels: Labels, classes: int) -> Doubles:
    """Return (N, C), 1 where an image is of the class."""
    chosen: Doubles = (labels[:, None] == np.arange(classes)).astype(np.float64)
    return chosen
