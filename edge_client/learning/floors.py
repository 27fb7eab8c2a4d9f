"""Floors below which a site keeps to itself what it learnt. Its operator sets them, no plan does. No PyTorch.

What they were chosen from is measured in docs/results/leakage.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Meta

from fedmedclip.edge_client.learning.method import ClosedFormMethod, trainable_method
from fedmedclip.protocol.heads.methods import Method

if TYPE_CHECKING:
    from fedmedclip.edge_client.learning.training import TrainedHeads

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]
Train = Callable[[Floats, Labels, Labels | None], "TrainedHeads"]
"""(embeddings (N, D), labels (N,), groups (N,) where they are known) to the heads of a round."""

LEAST_TO_TRAIN = 2


class Floors(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The table `[privacy]` of a site: how few images may speak for others to hear.

    A class with fewer training images than `least_images_per_class` is left out of statistics of classes that
    a method shares; a site with fewer than `least_images` trains its private head, but sends nothing. 64 are
    two batches of the default size: an update of one batch tells exactly whose images are in it.
    """

    least_images_per_class: Annotated[int, Meta(ge=1, le=1_000_000)] = 8
    least_images: Annotated[int, Meta(ge=LEAST_TO_TRAIN, le=1_000_000)] = 64

    def lines(self, labels: Labels, class_names: Sequence[str]) -> list[str]:
        """Return what the floors do at a site with these training labels (N,), as lines for a person."""
        counts = np.bincount(labels, minlength=len(class_names))
        lines = [
            f"class {name!r} has {count} training images, fewer than least_images_per_class = "
            f"{self.least_images_per_class}: it is left out of shared statistics of classes"
            for name, count in zip(class_names, counts.tolist(), strict=True)
            if 0 < count < self.least_images_per_class
        ]
        if len(labels) < self.least_images:
            lines.append(f"{self._too_few(len(labels))}: it trains its private head, and sends no update")
        for name in self.__struct_fields__:
            value, usual = getattr(self, name), getattr(DEFAULT_FLOORS, name)
            if value < usual:
                lines.append(
                    f"[privacy] {name} is {value}, below the usual {usual}: what this site sends tells more "
                    "of single images"
                )
        return lines

    def reason_to_keep(self, method: str, labels: Labels) -> str:
        """Return why a site with these training labels (N,) sends no update; empty when it does.

        Raises InvalidInputError for a method that cannot train.
        """
        if len(labels) < self.least_images:
            return self._too_few(len(labels))
        shown = int(self.shared_images(method, labels).sum())
        if shown < self.least_images:
            return (
                f"classes with at least {self.least_images_per_class} training images have {shown} together "
                f"at this site, fewer than its least_images = {self.least_images}"
            )
        return ""

    def shared_images(self, method: str, labels: Labels) -> npt.NDArray[np.bool_]:
        """Return which training images (N,) may show in the shared head: in statistics, no rare class's.

        Raises InvalidInputError for a method that cannot train.
        """
        if not _shares_statistics(trainable_method(method)):
            return np.ones(len(labels), dtype=np.bool_)
        frequent: npt.NDArray[np.bool_] = np.bincount(labels) >= self.least_images_per_class
        return frequent[labels]

    def _too_few(self, images: int) -> str:
        return f"this site has {images} training images, fewer than its least_images = {self.least_images}"


DEFAULT_FLOORS = Floors()
NO_FLOORS = Floors(least_images_per_class=1, least_images=LEAST_TO_TRAIN)
"""For sites that are small by design, such as a benchmark's: whatever can be trained on is sent."""


def train_within(
    floors: Floors,
    method: str,
    embeddings: Floats,
    labels: Labels,
    train: Train,
    groups: Labels | None = None,
) -> TrainedHeads:
    """Train on all images; where the shared head is statistics, on those that may show for it.

    The method takes no part in this, so that one of another distribution cannot get it wrong. Where too few
    images may show for training, the shared head is of all of them: it must not be sent (`reason_to_keep`).
    """
    heads = train(embeddings, labels, groups)
    chosen = floors.shared_images(method, labels)
    if chosen.all() or chosen.sum() < LEAST_TO_TRAIN:
        return heads
    of_chosen = None if groups is None else groups[chosen]
    return replace(heads, shared=train(embeddings[chosen], labels[chosen], of_chosen).shared)


def _shares_statistics(method: Method) -> bool:
    return method.sends_statistics or isinstance(method, ClosedFormMethod)
