"""The attacks: what a hostile site trains on, claims and delivers.

Hostile sites know each other and what all honest sites deliver in the round, and send what they forge without
loss: the worst case that the protocol allows.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from fedmedclip.protocol.codecs.error_feedback import norm_of
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.heads.head import NamedArrays
from fedmedclip.protocol.near_names import unknown_name
from fedmedclip.protocol.seeds import derive_seed
from fedmedclip.simulation.federation.trainer import Trainer
from fedmedclip.simulation.federation.virtual_sites import VirtualSite
from fedmedclip.simulation.name_lists import parse_names

NO_ATTACK = "none"
CLAIMED_SAMPLES = 1_000_000_000
_BELOW_THE_LIMIT = 0.999


@dataclass(frozen=True)
class Knowledge:
    """What a hostile site knows in a round: its own update, the honest ones, and how many are hostile.

    `limit` is the largest norm that counts; `draw` is its own for this round.
    """

    own: NamedArrays
    honest: Sequence[NamedArrays]
    hostile: int
    limit: float
    draw: np.random.Generator


Forge = Callable[[Knowledge, float], NamedArrays]
"""What a site knows and the attack's strength to the update that it delivers."""


def sign_flip(known: Knowledge, strength: float) -> NamedArrays:
    """Return -strength times its own update."""
    return _times(known.own, -strength)


def scale(known: Knowledge, strength: float) -> NamedArrays:
    """Return its own update, as long as `strength` times the largest norm that counts."""
    return _times(known.own, _BELOW_THE_LIMIT * strength * known.limit / max(norm_of(known.own), 1e-12))


def noise(known: Knowledge, strength: float) -> NamedArrays:
    """Return Gaussian noise whose norm is `strength` times that of its own update."""
    drawn = {
        name: known.draw.standard_normal(array.shape, dtype=np.float32) for name, array in known.own.items()
    }
    return _times(drawn, strength * norm_of(known.own) / norm_of(drawn))


def a_little_is_enough(known: Knowledge, strength: float) -> NamedArrays:
    """Return mean - z * standard deviation of the honest updates, value by value (Baruch et al. 2019).

    z is `z_max`, or `strength` where that is larger.
    """
    z = max(strength, z_max(len(known.honest) + known.hostile, known.hostile))
    forged = {}
    for name in known.own:
        values = _stacked(known, name)
        forged[name] = (values.mean(axis=0) - z * values.std(axis=0)).astype(np.float32)
    return forged


def inner_product_manipulation(known: Knowledge, strength: float) -> NamedArrays:
    """Return -strength times the mean of the honest updates (Xie et al. 2020, "Fall of empires")."""
    return {name: (-strength * _stacked(known, name).mean(axis=0)).astype(np.float32) for name in known.own}


def z_max(sites: int, hostile: int) -> float:
    """Return how many standard deviations off the mean still look like an honest update.

    Baruch et al. 2019, algorithm 3: with s = floor(n / 2 + 1) - m supporters needed, the largest z with
    Phi(z) < (n - m - s) / (n - m). Minus infinity where no z is small enough.
    """
    supporters = math.floor(sites / 2 + 1) - hostile
    share = (sites - hostile - supporters) / (sites - hostile)
    if share >= 1:
        return math.inf
    return NormalDist().inv_cdf(share) if share > 0 else -math.inf


@dataclass(frozen=True)
class Attack:
    """An attack by its name. Without `forge` hostile sites deliver what their training gives.

    `strength` is what `forge` makes of it. With `flips_labels` they train on wrong labels; `claims` is the
    number of samples that they say they have, None: as many as they have.
    """

    name: str
    forge: Forge | None = None
    strength: float | None = None
    flips_labels: bool = False
    claims: int | None = None


ATTACKS = {
    attack.name: attack
    for attack in (
        Attack("sign-flip", sign_flip, 10.0),
        Attack("scale", scale, 1.0),
        Attack("noise", noise, 10.0),
        Attack("label-flip", flips_labels=True),
        # z_max is 0 with one of five hostile, and below 0 with one of ten: that attack would be none.
        Attack("alie", a_little_is_enough, 1.5),
        Attack("ipm", inner_product_manipulation, 10.0),
        Attack("samples", flips_labels=True, claims=CLAIMED_SAMPLES),
    )
}


def attack_named(text: str) -> Attack:
    """Return the attack of `NAME` or `NAME:strength=VALUE`; its name is the text as given.

    Raises InvalidInputError for an unknown name, for a strength that is none, and where there is none to set.
    """
    name, colon, setting = text.partition(":")
    if name not in ATTACKS:
        raise InvalidInputError(unknown_name("attack", name, ATTACKS))
    attack = ATTACKS[name]
    if not colon:
        return attack
    key, _, value = setting.partition("=")
    if attack.strength is None or key != "strength":
        raise InvalidInputError(
            f"attack {text[:80]!r}: "
            + ("only strength can be set" if attack.strength is not None else f"{name!r} has no strength")
        )
    try:
        strength = float(value)
    except ValueError:
        strength = math.nan
    if not 0 <= strength <= 1e6:
        raise InvalidInputError(f"attack {text[:80]!r}: give a strength from 0 to 1000000")
    return replace(attack, name=text, strength=strength)


def attack_choices(text: str) -> list[Attack]:
    """Return the attacks of a list with commas between them, each once, in its order; `none` is left out.

    Raises InvalidInputError as `attack_named` does, and for an empty list.
    """
    return [attack_named(name) for name in parse_names("--attacks", text) if name != NO_ATTACK]


@dataclass(frozen=True)
class Attackers:
    """The adversary of one run: these sites play this attack. `seed` is the run's."""

    attack: Attack
    hostile: frozenset[str]
    seed: int
    limit: float

    def trainer(self, trainer: Trainer) -> Trainer:
        """See `Adversary`."""
        if not self.attack.flips_labels:
            return trainer
        pool = trainer.pool
        flipped = (pool.labels + 1) % len(pool.class_embeddings)
        return replace(trainer, pool=replace(pool, labels=flipped))

    def claimed_samples(self, site: VirtualSite) -> int:
        """See `Adversary`."""
        return len(site.train) if self.attack.claims is None else self.attack.claims

    def forge(
        self, site: str, round_number: int, own: NamedArrays, honest: Sequence[NamedArrays]
    ) -> NamedArrays | None:
        """See `Adversary`."""
        if self.attack.forge is None or self.attack.strength is None:
            return None
        seed = derive_seed(self.seed, site=site, round_number=round_number, purpose="attack")
        draw = np.random.Generator(np.random.Philox(seed))
        known = Knowledge(own, honest, len(self.hostile), self.limit, draw)
        return self.attack.forge(known, self.attack.strength)


def hostile_sites(names: Sequence[str], number: int, seed: int) -> frozenset[str]:
    """Draw which sites are hostile: the same ones under every rule and attack."""
    draw = np.random.Generator(np.random.Philox(derive_seed(seed, purpose="hostile sites")))
    return frozenset(names[index] for index in draw.permutation(len(names))[:number])


def _stacked(known: Knowledge, name: str) -> npt.NDArray[np.float64]:
    return np.stack([update[name] for update in known.honest]).astype(np.float64)


def _times(arrays: NamedArrays, factor: float) -> NamedArrays:
    return {name: (array * factor).astype(np.float32) for name, array in arrays.items()}
