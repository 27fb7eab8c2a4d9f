"""Whom the noise hides: an image, or a patient with all images of theirs that count."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]
Unit = Literal["image", "patient"]


@dataclass(frozen=True)
class ProtectedUnits:
    """Which images count, `rows` int64 (M,), and whose each is: `members` int64 (M,), numbers from 0.

    Adding or removing one unit changes the number of images that count by `most_images` at most.
    """

    rows: Indices
    members: Indices
    most_images: int

    @property
    def number(self) -> int:
        """How many units there are."""
        return int(self.members.max()) + 1 if len(self.members) else 0


def protected_units(groups: Indices, unit: Unit, images_per_patient: int) -> ProtectedUnits:
    """Return the units of images with these groups (N,), equal numbers for one patient's images.

    Of a patient the first images count, `images_per_patient` at most: which these are depends on no other
    patient.
    """
    if unit == "image":
        every = np.arange(len(groups), dtype=np.int64)
        return ProtectedUnits(every, every, 1)
    _, members = np.unique(groups, return_inverse=True)
    order = np.argsort(members, kind="stable")
    ordered = members[order]
    starts = np.searchsorted(ordered, ordered, side="left")
    rows = np.sort(order[np.arange(len(order)) - starts < images_per_patient])
    return ProtectedUnits(rows.astype(np.int64), members[rows].astype(np.int64), images_per_patient)
