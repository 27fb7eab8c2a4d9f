"""What a federation of a benchmark does, and how its messages name and sign it."""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedmedclip.aggregator.weights import Weighting
from fedmedclip.edge_client.learning.floors import DEFAULT_FLOORS, Floors
from fedmedclip.edge_client.learning.settings import TrainingSettings
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.messages import Plan, PrivacyTerms
from fedmedclip.protocol.signature import SigningKey
from fedmedclip.simulation.federation.feature_pool import FeaturePool

FEDERATION = "bench"
AGGREGATOR = "aggregator"


@dataclass(frozen=True)
class FederationPlan:
    """A run's plan. Codecs, rule, weighting, share and norm are as in the aggregator's configuration.

    `floors` are those of every site, which in truth no plan says; under `privacy` they do not apply.
    """

    method: str
    uplink_codec: str
    downlink_codec: str
    rounds: int
    seed: int
    settings: TrainingSettings = field(default_factory=TrainingSettings)
    rule: str | None = None
    maximum_share: float = 0.5
    floors: Floors = DEFAULT_FLOORS
    maximum_update_norm: float = math.inf
    weighting: Weighting = "samples"
    privacy: PrivacyTerms | None = None


def settings_of(values: Mapping[str, Any], label: str) -> TrainingSettings:
    """Return training settings by name. Raises InvalidInputError for names or values that do not exist."""
    try:
        return msgspec.convert(dict(values), TrainingSettings)
    except msgspec.ValidationError as error:
        raise InvalidInputError(f"training settings of {label!r}: {error}") from error


def wire_plan(plan: FederationPlan, pool: FeaturePool, key: SigningKey) -> Plan:
    """Return the Plan message of a federation whose aggregator has this key."""
    return Plan(
        identity=pool.digest[:16],
        aggregator_key=key.public_key,
        method=plan.method,
        bundle_digest=pool.digest,
        embedding_size=pool.embedding_size,
        rounds=plan.rounds,
        seed=plan.seed,
        uplink_codec=plan.uplink_codec,
        downlink_codec=plan.downlink_codec,
        training={},
        number=1,
        revision=1,
        paused=False,
        maximum_update_norm=plan.maximum_update_norm,
        start=None,
        privacy=plan.privacy,
    )


def derived_key(seed: int, name: str) -> SigningKey:
    """Return the same signing key for the same name each time: no key is worth keeping in a simulation."""
    private = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    return SigningKey(Ed25519PrivateKey.from_private_bytes(private))
