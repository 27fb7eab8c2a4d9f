"""Playing all rounds: who takes part, what travels, and what a report asks after each."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from fedmedclip.simulation.federation.evaluation import Learning
from fedmedclip.simulation.federation.virtual_sites import VirtualSite

Score = TypeVar("Score")


@dataclass(frozen=True)
class PlayedRound(Generic[Score]):
    """How many sites took part, the bytes of all of them together, and what was found of the new heads."""

    sites: int
    uplink_bytes: int
    downlink_bytes: int
    exchanges: int
    score: Score


@dataclass(frozen=True)
class PlayedRounds(Generic[Score]):
    """All rounds, how many sites took part in any, and the sums of bytes by message."""

    rounds: list[PlayedRound[Score]]
    sites_reached: int
    uplink_by_message: dict[str, int]
    downlink_by_message: dict[str, int]


def play(
    learning: Learning,
    rounds: int,
    participants: Callable[[int], Sequence[VirtualSite]],
    score: Callable[[], Score],
    on_round: Callable[[], None],
) -> PlayedRounds[Score]:
    """Play rounds 1 to `rounds`; `score` is asked after each, then `on_round` is told."""
    played: list[PlayedRound[Score]] = []
    reached: set[str] = set()
    uplink: Counter[str] = Counter()
    downlink: Counter[str] = Counter()
    for number in range(1, rounds + 1):
        chosen = participants(number)
        traffic = learning.play_round(number, chosen)
        reached.update(site.name for site in chosen)
        uplink += traffic.uplink
        downlink += traffic.downlink
        sums = traffic.uplink.total(), traffic.downlink.total(), traffic.exchanges
        played.append(PlayedRound(len(chosen), *sums, score()))
        on_round()
    return PlayedRounds(played, len(reached), dict(sorted(uplink.items())), dict(sorted(downlink.items())))
