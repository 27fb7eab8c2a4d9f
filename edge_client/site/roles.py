"""What the agent is given: who the site is, and what it learns from its own images."""

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from fedmedclip.edge_client.site.releases import Release
from fedmedclip.protocol.codecs.error_feedback import Compressed
from fedmedclip.protocol.heads.head import HeadSpecification, NamedArrays
from fedmedclip.protocol.messages import Plan


@dataclass(frozen=True)
class Contribution:
    """How many images an update of a site is made of, and why it is not sent: empty when it is."""

    samples: int
    withheld: str = ""


@dataclass(frozen=True)
class PrivateSide:
    """What the centre is told of a site under privacy.

    `samples` stands for its number of images. `cannot` says why it keeps to no terms in this run, `withheld`
    why the next update is not sent; empty where it is. `release` is what the update costs that was trained
    last, None where there was none to be sent.
    """

    samples: int
    cannot: str
    withheld: str
    release: Release | None


class Learner(Protocol):
    """What the site does with its own images, which the agent never sees."""

    samples: int

    def private_specification(self, plan: Plan, classes: int | None = None) -> HeadSpecification:
        """Return the specification of the private head, and of what else is kept beside it between rounds.

        `classes` takes the place of the number of the bundle's classes. Raises InvalidInputError for a plan
        it cannot do.
        """

    def initial_private_head(self, plan: Plan) -> NamedArrays:
        """Return the private head before the first round, drawn from the plan's seed and the site's name."""

    def train(
        self, plan: Plan, shared: NamedArrays, private: NamedArrays, round_number: int
    ) -> tuple[NamedArrays, NamedArrays]:
        """Return the shared and the private head after one local round. Deterministic in its arguments.

        Raises InvalidInputError or HeadError when they cannot be trained.
        """

    def contribution(self, plan: Plan) -> Contribution:
        """Return what an update of this site stands for, the same throughout a run.

        Raises InvalidInputError for a method that cannot train.
        """

    def privacy(self, plan: Plan) -> PrivateSide | None:
        """Return what this site's updates keep to in a run; None where nobody asks for privacy."""

    def compressed(self, round_number: int, compressed: Compressed) -> None:
        """Take notice of what the round's update leaves to later rounds."""

    def installed(
        self, plan: Plan, version: int, shared: NamedArrays, private: NamedArrays, finished: bool
    ) -> None:
        """Take notice of a new version: evaluate it, keep it for prediction. May come twice for a version."""


@dataclass(frozen=True)
class Identity:
    """Who the site is. With `aggregator_key` None, the first aggregator heard is trusted and pinned.

    `embedding_size` and `classes` are those of its bundle (None: not compared, not needed by the method).
    `software` is the version that it says it runs. `start_directions` (k, D) are the bundle's class
    embeddings: what a sum under masks sees a symmetric matrix in, at first. By the bundle's `class_names`
    private heads are carried over into a run with other classes; empty: not known.
    """

    federation: str
    site: str
    public_key: bytes
    bundle_digest: bytes
    aggregator_key: bytes | None
    classes: int | None = None
    embedding_size: int | None = None
    software: str = ""
    start_directions: npt.NDArray[np.float32] | None = field(default=None, compare=False)
    class_names: tuple[str, ...] = ()
