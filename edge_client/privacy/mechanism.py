"""How much Gaussian noise makes one release (epsilon, delta)-private, exactly.

The classical calibration holds for epsilon below 1 only, and adds more noise than is needed there. The
analytic one is exact for every epsilon: Balle and Wang, "Improving the Gaussian mechanism for differential
privacy" (ICML 2018), theorem 8. Both functions speak of a function with L2 sensitivity 1; for a sensitivity
S the standard deviation of the noise is S times the multiplier.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from fedmedclip.protocol.errors import InvalidInputError


def noise_multiplier(epsilon: float, delta: float) -> float:
    """Return the least standard deviation of Gaussian noise, per coordinate, that gives (epsilon, delta).

    For an L2 sensitivity of 1. The number is rounded upwards, to the side of more noise. Raises
    InvalidInputError unless epsilon is positive and finite and delta lies between 0 and 1.
    """
    _check(epsilon, delta)
    return _least(lambda multiplier: delta_of(multiplier, epsilon) <= delta)


def epsilon_of(noise_multiplier: float, delta: float) -> float:
    """Return the least epsilon that one release with this noise has at `delta`; 0 where delta covers all.

    The inverse of `noise_multiplier`, rounded upwards. Raises InvalidInputError unless the multiplier is
    positive and finite and delta lies between 0 and 1.
    """
    _check_multiplier(noise_multiplier)
    _check_delta(delta)
    if delta_of(noise_multiplier, 0.0) <= delta:
        return 0.0
    return _least(lambda epsilon: delta_of(noise_multiplier, epsilon) <= delta)


def delta_of(noise_multiplier: float, epsilon: float) -> float:
    """Return the least delta that one release with this noise has at `epsilon` (0 or more)."""
    _check_multiplier(noise_multiplier)
    half, shift = 0.5 / noise_multiplier, epsilon * noise_multiplier
    # The second term is the smaller one; its logarithm keeps e**epsilon from overflowing.
    return max(0.0, math.exp(_log_normal(half - shift)) - math.exp(epsilon + _log_normal(-half - shift)))


def _least(holds: Callable[[float], bool]) -> float:
    """Return the least positive number for which `holds`, to 12 digits; it must hold from there on."""
    low, high = 1.0, 1.0
    while not holds(high):
        high *= 2.0
    while holds(low):
        low /= 2.0
    while high - low > 1e-12 * high:
        middle = (low + high) / 2.0
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def _log_normal(x: float) -> float:
    """Return the logarithm of the standard normal distribution function at x."""
    if x > -30.0:
        return math.log(0.5 * math.erfc(-x / math.sqrt(2.0)))
    # Abramowitz and Stegun, 26.2.12: beyond this erfc leaves the normal numbers.
    square = x * x
    series = 1.0 - 1.0 / square + 3.0 / square**2 - 15.0 / square**3
    return -square / 2.0 - math.log(-x * math.sqrt(2.0 * math.pi)) + math.log(series)


def _check(epsilon: float, delta: float) -> None:
    if not (epsilon > 0.0 and math.isfinite(epsilon)):
        raise InvalidInputError(f"epsilon is {epsilon}; privacy needs a positive, finite number, such as 8")
    _check_delta(delta)


def _check_delta(delta: float) -> None:
    if not 0.0 < delta < 1.0:
        raise InvalidInputError(f"delta is {delta}; privacy needs a number between 0 and 1, such as 1e-5")


def _check_multiplier(multiplier: float) -> None:
    if not (multiplier > 0.0 and math.isfinite(multiplier)):
        raise InvalidInputError(f"the noise multiplier is {multiplier}; it must be positive and finite")
