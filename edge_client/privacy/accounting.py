"""What several releases cost together.

Releases with plain Gaussian noise compose exactly: k of them with multipliers z_i tell as much as one with
1 / sqrt(sum 1 / z_i^2) (Dong, Roth and Su, "Gaussian differential privacy", 2022, corollary 3.3). Steps that
see a random part of the data are accounted with Google's dp-accounting, by their privacy loss distributions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec

import msgspec

from fedmedclip.edge_client.privacy.mechanism import epsilon_of, least, noise_multiplier
from fedmedclip.protocol.errors import InvalidInputError

# Of the privacy loss; what is rounded is rounded upwards.
_DISCRETIZATION = 1e-3
# A thousandth more noise than is needed costs nothing that anybody would notice.
_PRECISION = 1e-3
# Of a budget, as inverse variance: what the number of images takes where gradients take the rest.
_COUNT_SHARE = 1 / 16


class GaussianSteps(msgspec.Struct, frozen=True, array_like=True):
    """`steps` releases of sums with sensitivity 1, each with noise of standard deviation `noise_multiplier`.

    Each is of a part that takes in every image or patient with probability `sampling_rate`, by itself.
    """

    noise_multiplier: float
    sampling_rate: float = 1.0
    steps: int = 1


def epsilon_spent(releases: Sequence[GaussianSteps], delta: float) -> float:
    """Return the epsilon of all releases together at `delta`, an upper bound; 0 of none.

    Raises InvalidInputError where some are of samples, and dp-accounting is not installed.
    """
    whole, sampled = _gathered(releases)
    if not sampled:
        return 0.0 if whole is None else epsilon_of(whole, delta)
    return _epsilon_of_samples(whole, sampled, delta)


def noise_of_one_among(epsilon: float, delta: float, releases: int) -> float:
    """Return the noise multiplier of each of so many plain Gaussian releases, which cost (epsilon, delta)."""
    return noise_multiplier(epsilon, delta) * math.sqrt(releases)


def noise_of_count(epsilon: float, delta: float) -> float:
    """Return the noise multiplier of the number of images, where most of the budget is for gradients."""
    return noise_multiplier(epsilon, delta) / math.sqrt(_COUNT_SHARE)


@lru_cache(maxsize=64)
def noise_of_steps(
    epsilon: float, delta: float, sampling_rate: float, steps: int, beside: tuple[GaussianSteps, ...] = ()
) -> float:
    """Return the noise multiplier of each of so many sampled steps, such that all cost (epsilon, delta).

    `beside` is what is released with them. Raises InvalidInputError where that alone costs more, and as
    `epsilon_spent` does.
    """
    if epsilon_spent(beside, delta) >= epsilon:
        raise InvalidInputError(f"a budget of epsilon {epsilon:g} leaves nothing for training")

    def holds(multiplier: float) -> bool:
        release = GaussianSteps(multiplier, sampling_rate, steps)
        return epsilon_spent((*beside, release), delta) <= epsilon

    # Without sampling it would be about this. What is far too little noise takes the accountant long.
    guess = noise_multiplier(epsilon, delta) * math.sqrt(steps)
    return least(holds, _PRECISION, guess, 1.25)


def require_accountant() -> None:
    """Raise InvalidInputError where what accounts for sampled steps is not installed."""
    if find_spec("dp_accounting") is None:
        raise InvalidInputError(
            "training under [privacy] needs dp-accounting: pip install 'fedmedclip-edge[privacy]'"
        )


def _gathered(
    releases: Sequence[GaussianSteps],
) -> tuple[float | None, tuple[tuple[float, float, int], ...]]:
    """Return one multiplier for all plain releases (None: there are none), and the sampled ones by kind."""
    inverse_variance = 0.0
    sampled: dict[tuple[float, float], int] = {}
    for release in releases:
        if release.sampling_rate == 1.0:
            inverse_variance += release.steps / release.noise_multiplier**2
        else:
            kind = release.noise_multiplier, release.sampling_rate
            sampled[kind] = sampled.get(kind, 0) + release.steps
    whole = 1.0 / math.sqrt(inverse_variance) if inverse_variance > 0 else None
    return whole, tuple((*kind, steps) for kind, steps in sorted(sampled.items()))


@lru_cache(maxsize=256)
def _epsilon_of_samples(
    whole: float | None, sampled: tuple[tuple[float, float, int], ...], delta: float
) -> float:
    require_accountant()
    from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
    from dp_accounting.pld import PLDAccountant

    accountant = PLDAccountant(value_discretization_interval=_DISCRETIZATION)
    if whole is not None:
        accountant.compose(GaussianDpEvent(whole))
    for multiplier, rate, steps in sampled:
        accountant.compose(PoissonSampledDpEvent(rate, GaussianDpEvent(multiplier)), steps)
    return float(accountant.get_epsilon(delta))
