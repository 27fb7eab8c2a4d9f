"""The settings of a method that bring a site's uplink to a budget, the most that fits of each kind."""

from collections.abc import Callable, Sequence

from benchmarks.one_shot.peer import Peer
from benchmarks.one_shot.transmission import Setting

BITS = (4, 8)
MOST_PARTS = 16
MOST_RANK = 64

Size = Callable[[Setting], int]
"""The largest message of any site with a setting, in bytes."""


def settings_within(budget: int | None, peer: Peer, size: int, message: Size) -> list[Setting]:
    """Return the settings whose `message` takes at most `budget` bytes (None: everything, in float32).

    For embeddings of `size` values. Of each kind, random directions, low rank, several means, and each number
    of bits, it is the largest that fits; a kind of which nothing fits is left out. Low ranks and means are
    turned into as many random directions as there are dimensions: embeddings have a few large values, which
    few bits would cut off.
    """
    if budget is None:
        return [Setting()]
    kinds: list[tuple[Callable[[int, int], Setting], int]] = [
        (lambda bits, number: Setting(bits, directions=number), size)
    ]
    if peer.has_matrix:
        kinds.append((lambda bits, number: Setting(bits, size, rank=number), min(MOST_RANK, size)))
    if peer.parts:
        kinds.append((lambda bits, number: Setting(bits, size, parts=number), MOST_PARTS))
    found = [
        _largest_within(budget, [kind(bits, number) for number in range(1, most + 1)], message)
        for bits in BITS
        for kind, most in kinds
    ]
    return [setting for setting in found if setting is not None]


def _largest_within(budget: int, ascending: Sequence[Setting], message: Size) -> Setting | None:
    """Return the last setting that fits, by bisection; None where the first does not."""
    fitting, beyond = -1, len(ascending)
    while beyond - fitting > 1:
        middle = (fitting + beyond) // 2
        if message(ascending[middle]) <= budget:
            fitting = middle
        else:
            beyond = middle
    return ascending[fitting] if fitting >= 0 else None
