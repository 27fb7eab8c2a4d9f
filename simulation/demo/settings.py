"""What the demo is asked to do, and how long each part of it took."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from fedmedclip.aggregator.page.beside import LAST_WORDS_SECONDS
from fedmedclip.protocol.heads.methods import rounds_for

_USUAL_ROUNDS = 10


@dataclass(frozen=True)
class DemoSettings:
    """What the demo is asked to do; `data`, `model` and `bundle` None: what the package brings along.

    With `page` the aggregator has its page, and the demo says where; a page that somebody looks at stays
    for at most `page_stays_seconds` after all else.
    """

    out: Path
    data: Path | None = None
    model: str | None = None
    pretrained: str | None = None
    bundle: Path | None = None
    method: str = "fedmedclip"
    rounds: int | None = None
    broker: str = "embedded"
    codec: str | None = None
    seed: int = 0
    page: bool = True
    page_stays_seconds: float = LAST_WORDS_SECONDS

    @property
    def rounds_played(self) -> int:
        """The number of rounds, also where none is named."""
        return rounds_for(self.method, self.rounds, _USUAL_ROUNDS)


@dataclass
class Phases:
    """Wall-clock seconds of each phase, by name, in order."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def measured(self, name: str) -> Iterator[None]:
        """Time a phase."""
        started = time.monotonic()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - started
