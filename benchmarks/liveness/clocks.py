"""How long everything takes in the model: in the code's order, but all within a few waits.

Each moment at which a wait may begin is another state. With the code's own times (a lease of 180 s, a silence
of 300 s) there would be so many that two faults could not be searched through.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from fedmedclip.aggregator import recovery
from fedmedclip.edge_client.site import abstention, application, consent, delivery, head_follower
from fedmedclip.protocol import moments
from fedmedclip.protocol.messages import Moment

WAIT_SECONDS = 21.0
"""How far the clock moves when nothing is on its way: just beyond the time until the code asks again."""
ASK_AGAIN_SECONDS = head_follower.ASK_AGAIN_SECONDS
HEARTBEAT_SECONDS = 2 * WAIT_SECONDS
LEASE_SECONDS = 3 * WAIT_SECONDS
ROUND_SECONDS = 4 * WAIT_SECONDS
SILENCE_SECONDS = 4 * WAIT_SECONDS
NEXT_MEMBER_SECONDS = 3 * WAIT_SECONDS
RETRY_SECONDS = WAIT_SECONDS


class _StoppedTime:
    """In place of the module `time`: when something was decided says nothing about what happens next."""

    @staticmethod
    def time() -> float:
        return 0.0


def _is_not_earlier(moment: Moment, known: Moment | None) -> bool:
    return known is None or moments.order(moment) >= moments.order(known)


@contextmanager
def short_clocks() -> Iterator[None]:
    """Let the code have these times for a while.

    What a site says within one connection has one moment, and counts as new each time: were it numbered, no
    state would ever come again, and no search end. Sessions and connections are numbered as they are.
    """
    places: list[tuple[ModuleType, str, Any]] = [
        (moments, "SEQUENCE_STEP", 0),
        (moments, "is_later", _is_not_earlier),
        (abstention, "SILENCE_SECONDS", SILENCE_SECONDS),
        (application, "DECLINE_AGAIN_SECONDS", RETRY_SECONDS),
        (head_follower, "SILENCE_SECONDS", SILENCE_SECONDS),
        (recovery, "NEXT_MEMBER_SECONDS", NEXT_MEMBER_SECONDS),
        (delivery, "RETRY_SECONDS", RETRY_SECONDS),
        (delivery, "LONGEST_RETRY_SECONDS", 2 * RETRY_SECONDS),
        (consent, "time", _StoppedTime),
    ]
    before = [getattr(module, name) for module, name, _ in places]
    for module, name, seconds in places:
        setattr(module, name, seconds)
    try:
        yield
    finally:
        for (module, name, _), seconds in zip(places, before, strict=True):
            setattr(module, name, seconds)
