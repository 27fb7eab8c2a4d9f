"""What a benchmark's run does, as data: what is trained, by whom, on which sites, and which heads count."""

import hashlib
import math
from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from fedmedclip.aggregator.rules.names import rule_for
from fedmedclip.aggregator.weights import Weighting
from fedmedclip.edge_client.learning.floors import DEFAULT_FLOORS, NO_FLOORS, Floors
from fedmedclip.edge_client.learning.settings import TrainingSettings
from fedmedclip.protocol.heads.shared_heads import usual_releases
from fedmedclip.protocol.messages import PrivacyTerms
from fedmedclip.protocol.privacy import NO_DEMAND, PrivacySettings
from fedmedclip.simulation.federation.coders import codecs_of
from fedmedclip.simulation.federation.dealing import Dealing
from fedmedclip.simulation.federation.evaluation import ZERO_SHOT
from fedmedclip.simulation.federation.plan import FederationPlan
from fedmedclip.simulation.federation.targets import Target

Regime = Literal["federated", "local-only", "pooled"]
USUAL_ROUNDS = 30
"""Of a run whose user names no number, unless its method needs fewer."""

Selection = Literal["last", "best-validation"]


class Experiment(msgspec.Struct, frozen=True, kw_only=True):
    """A run, except its features and seed. `begin` of `simulation.federation.engine` plays it.

    `method` may also be `zero-shot`, which has nothing to train. In the regime `local-only` each site trains
    on its own and nothing travels; in `pooled` all sites' training images lie in one place and one pair of
    heads trains on them. Floors, codecs, rule and weighting are a federation's: the other two send nothing
    that could be kept back. `rule` None is the method's default. `target` is what an adapting method adapts
    to. `masked` False keeps every row of every masked layer. `sites_per_round` of the federation's sites,
    drawn anew, take part in a round (None: all). `left_out` is a site that does not train. `select` says
    which round's heads are the result: the last, or those with the best mean accuracy over the sites'
    validation images. `privacy` is what a federation's plan asks for.
    """

    method: str
    rounds: int
    settings: TrainingSettings = TrainingSettings()
    uplink_codec: str = "lowrank"
    downlink_codec: str = "lowrank"
    rule: str | None = None
    weighting: Weighting = "samples"
    maximum_update_norm: float = math.inf
    floors: Floors = DEFAULT_FLOORS
    target: Target | None = None
    masked: bool = True
    regime: Regime = "federated"
    dealing: Dealing = Dealing()
    sites_per_round: int | None = None
    left_out: str | None = None
    select: Selection = "last"
    privacy: PrivacySettings = NO_DEMAND

    @property
    def federated(self) -> bool:
        """Whether the sites learn together, with messages."""
        return self.regime == "federated" and self.method != ZERO_SHOT

    @property
    def rule_name(self) -> str | None:
        """The name of the aggregation rule, also where it is the method's default; None without federation.

        Raises InvalidInputError for a rule that does not exist or does not suit the method.
        """
        return rule_for(self.method, self.rule).name if self.federated else None

    @property
    def identity(self) -> str:
        """Digest of everything that a run's numbers depend on, except features and seed."""
        return hashlib.sha256(msgspec.json.encode(self.description(), order="deterministic")).hexdigest()

    def plan(self, seed: int) -> FederationPlan:
        """Return the plan of a seed's run."""
        return FederationPlan(
            self.method,
            self.uplink_codec,
            self.downlink_codec,
            self.rounds,
            seed,
            self.settings,
            self.rule,
            floors=self.floors if self.federated else NO_FLOORS,
            maximum_update_norm=self.maximum_update_norm,
            weighting=self.weighting,
            privacy=self._terms() if self.federated else None,
        )

    def _terms(self) -> PrivacyTerms | None:
        return self.privacy.terms(usual_releases(self.method, self.rounds))

    def description(self) -> dict[str, Any]:
        """Return everything that a run's numbers depend on, except features and seed, as JSON has it."""
        federated = {
            "codecs": [self.uplink_codec, self.downlink_codec],
            "rule": self.rule_name,
            "weighting": self.weighting,
            "maximum_update_norm": None if math.isinf(self.maximum_update_norm) else self.maximum_update_norm,
            "maximum_share": self.plan(0).maximum_share,
            "floors": msgspec.to_builtins(self.floors),
            "sites_per_round": self.sites_per_round,
        }
        if self.federated and (terms := self._terms()) is not None:
            federated["privacy"] = {name: getattr(terms, name) for name in terms.__struct_fields__}
        return {
            "method": self.method,
            "regime": self.regime,
            "rounds": self.rounds,
            "training": msgspec.to_builtins(self.settings),
            "target": msgspec.to_builtins(self.target),
            "masked": self.masked,
            "left_out": self.left_out,
            "select": self.select,
            **self.dealing.description(),
            **(federated if self.federated else dict.fromkeys(federated)),
        }


def with_codec(experiment: Experiment, codec: str) -> Experiment:
    """Return the experiment with a codec, or `UP/DOWN`. Raises InvalidInputError as `codecs_of` does."""
    uplink, downlink = codecs_of(codec)
    return msgspec.structs.replace(experiment, uplink_codec=uplink, downlink_codec=downlink)


def shared_by_runs(experiment: Experiment, *varied: str) -> Mapping[str, Any]:
    """Return the description without what differs between a benchmark's runs."""
    return {name: value for name, value in experiment.description().items() if name not in varied}
