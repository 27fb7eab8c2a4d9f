"""What a method is that solves for its heads instead of descending to them. It needs no PyTorch."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedmedclip.protocol.heads.head import NamedArrays

Fit = Callable[
    [NamedArrays, npt.NDArray[np.float32], npt.NDArray[np.int64], int, int],
    tuple[NamedArrays, NamedArrays, float],
]
"""(shared head, embeddings (N, D), labels (N,), classes, seed) to shared head, private head and loss."""


@dataclass(frozen=True)
class ClosedFormMethod:
    """One way to fit heads. Training settings do not apply to it."""

    name: str
    fit: Fit
