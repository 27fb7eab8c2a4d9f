"""Where answers go beside the one who asked: files, an archive. Each outlet is one way."""

from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from fedmedclip.edge_client.serving.answer import Answer
from fedmedclip.edge_client.serving.arrival import Arrival
from fedmedclip.protocol.errors import FedMedClipError


class DeliveryError(FedMedClipError):
    """An answer could not be delivered, as the one line says.

    It is tried again, with growing pauses, unless it is `permanent`: then it is put aside.
    """

    def __init__(self, line: str, *, permanent: bool = False) -> None:
        super().__init__(line)
        self.permanent = permanent


class Outlet(Protocol):
    """One way that answers go. `name` is its own in the service and stays over restarts."""

    name: str

    def prepare(
        self, arrival: Arrival, content: Path, answer: Answer, pixels: npt.NDArray[np.uint8] | None
    ) -> bytes | None:
        """Return what is to be delivered, or None for nothing, while the `content` of the arrival is there.

        It is stored with the answer, at once, so what is drawn here, such as a UID, is drawn once. `pixels`
        (height, width, 3) is the first image as the encoder took it, None where none could be read. What it
        raises puts this delivery aside, and never the answer.
        """

    def deliver(self, payload: bytes, answer: Answer) -> None:
        """Deliver; again after a crash, so twice must be as good as once. Raises DeliveryError."""
