"""How long everything takes in the model: in the code's order, but all within a few waits.

Each moment at which a wait may begin is another state. With the code's own times (a lease of 180 s, a silence
of 300 s) there would be so many that two faults could not be searched through.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from fedmedclip.aggregator import recovery
from fedmedclip.edge_client.site import delivery, head_follower

WAIT_SECONDS = 21.0
"""How far the clock moves when nothing is on its way: just beyond the time until the code asks again."""
ASK_AGAIN_SECONDS = head_follower.ASK_AGAIN_SECONDS
HEARTBEAT_SECONDS = 2 * WAIT_SECONDS
LEASE_SECONDS = 3 * WAIT_SECONDS
ROUND_SECONDS = 4 * WAIT_SECONDS
SILENCE_SECONDS = 4 * WAIT_SECONDS
NEXT_MEMBER_SECONDS = 3 * WAIT_SECONDS
RETRY_SECONDS = WAIT_SECONDS


@contextmanager
def short_clocks() -> Iterator[None]:
    """Let the code have these times for a while."""
    places: list[tuple[ModuleType, str, float]] = [
        (head_follower, "SILENCE_SECONDS", SILENCE_SECONDS),
        (recovery, "NEXT_MEMBER_SECONDS", NEXT_MEMBER_SECONDS),
        (delivery, "RETRY_SECONDS", RETRY_SECONDS),
    ]
    before = [getattr(module, name) for module, name, _ in places]
    for module, name, seconds in places:
        setattr(module, name, seconds)
    try:
        yield
    finally:
        for (module, name, _), seconds in zip(places, before, strict=True):
            setattr(module, name, seconds)
