"""What the door asks of the service that it belongs to."""

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import msgspec

from fedmedclip.edge_client.inference.provenance import Provenance
from fedmedclip.edge_client.serving.answer import NOTICE, Answer
from fedmedclip.edge_client.serving.arrival import Accepted, Arrival


class Model(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What answers now. `level` is how often prediction sets hold the true class, None without such sets."""

    class_names: list[str]
    provenance: Provenance
    level: float | None = None
    notice: str = NOTICE


class Queue(Protocol):
    """What the door needs of the durable queue; `state_of` is None for an id that is not known."""

    def accept(self, arrival: Arrival) -> "Future[Accepted]": ...
    def wait(self, id: str) -> "Future[Answer]": ...
    def answer(self, id: str) -> Answer | None: ...
    def arrival(self, id: str) -> Arrival | None: ...
    def state_of(self, id: str) -> str | None: ...


@dataclass(frozen=True)
class Backing:
    """The service behind the door. `incoming` is the folder for files on their way into the `queue`.

    `fault` says in one line why nobody is answered now, "" when all is well. `model` is None until there is
    one. `figures` gives the service's metrics by name, see `metrics`.
    """

    queue: Queue
    incoming: Path
    fault: Callable[[], str]
    model: Callable[[], Model | None]
    figures: Callable[[], "Figures"]


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """The service's numbers at a moment; no names and no images.

    `results` are images by door and outcome, `labels` answered images by class. `waited` counts files by the
    seconds from acceptance to answer, in classes whose upper ends are `seconds`, the last class what took
    longer; `waited_sum` adds these up. `deliveries_waiting` is by outlet, `drift` by what was measured.
    """

    results: Mapping[tuple[str, str], int]
    labels: Mapping[str, int]
    seconds: tuple[float, ...]
    waited: list[int]
    waited_sum: float
    waiting: int
    aside: int
    deliveries_waiting: Mapping[str, int]
    drift: Mapping[str, float]
