"""A secret in shares: any `threshold` of them give it back, fewer say nothing of it.

Shamir 1979, "How to share a secret": points of a random polynomial whose value at 0 is the secret, over the
integers modulo the prime 2**130 - 5.
"""

import secrets
from collections.abc import Mapping, Sequence

PRIME = (1 << 130) - 5
SECRET_BYTES = 16
SHARE_BYTES = 17


def threshold_of(participants: int) -> int:
    """Return how many of so many participants it takes to unmask: all but a third, rounded up.

    Above half of them, also when fewer than a third of them work together with the aggregator: so there are
    never enough for two different lists of survivors.
    """
    return participants - participants // 3


def split(secret: bytes, threshold: int, holders: int) -> list[bytes]:
    """Return the shares (17 bytes each) of holders 1, 2, ... of a secret of 16 bytes.

    Raises ValueError for sizes that cannot be.
    """
    if len(secret) != SECRET_BYTES or not 1 <= threshold <= holders < PRIME:
        raise ValueError(f"{threshold} of {holders} shares of a secret of {len(secret)} bytes")
    coefficients = [int.from_bytes(secret, "big"), *(secrets.randbelow(PRIME) for _ in range(threshold - 1))]
    return [_value_at(coefficients, holder).to_bytes(SHARE_BYTES, "big") for holder in range(1, holders + 1)]


def combine(shares: Mapping[int, bytes]) -> bytes | None:
    """Return the secret that shares give; their keys are the holders, from 1.

    All of them are used, so they must be at least the threshold. None where they are shares of nothing: of no
    secret of 16 bytes.
    """
    holders = sorted(shares)
    total = 0
    for holder in holders:
        value = int.from_bytes(shares[holder], "big")
        if value >= PRIME:
            return None
        total += value * _lagrange_at_zero(holder, holders)
    total %= PRIME
    return total.to_bytes(SECRET_BYTES, "big") if total < 1 << 8 * SECRET_BYTES else None


def _value_at(coefficients: Sequence[int], point: int) -> int:
    value = 0
    for coefficient in reversed(coefficients):
        value = (value * point + coefficient) % PRIME
    return value


def _lagrange_at_zero(holder: int, holders: Sequence[int]) -> int:
    above, below = 1, 1
    for other in holders:
        if other != holder:
            above = above * other % PRIME
            below = below * (other - holder) % PRIME
    return above * pow(below, -1, PRIME)
