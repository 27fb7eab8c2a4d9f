"""What is compared: a case is an experiment with a name for people, and how its heads vote."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from fedmedclip.edge_client.heads.ensemble import EnsembleRule
from fedmedclip.edge_client.heads.method import site_method
from fedmedclip.edge_client.learning.version_head import adapts_to_versions
from fedmedclip.protocol.codecs import delta_codec_named
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.heads.methods import method_named
from fedmedclip.protocol.heads.shared_heads import known_methods
from fedmedclip.protocol.near_names import unknown_name
from fedmedclip.simulation.accuracy.row_names import known_rows, split_row_name
from fedmedclip.simulation.accuracy.training_tables import NO_TABLES, Tables, read_tables
from fedmedclip.simulation.federation.evaluation import ZERO_SHOT
from fedmedclip.simulation.federation.experiment import Experiment, with_codec
from fedmedclip.simulation.federation.targets import Target

MOST_LEFT_OUT = 10
"""Natural sites up to which each is left out in turn unless somebody asks for more: runs grow with them."""


class Named(NamedTuple):
    """What somebody asked for in all rows: a number of rounds, a codec; None: as each method has it."""

    rounds: int | None = None
    codec: str | None = None


AS_EACH_HAS_IT = Named()


class Case(Experiment, frozen=True, kw_only=True):
    """One row of the comparison: an experiment under a name, `label`.

    `ensemble` is how the heads vote, None: as the method has it. With a site `left_out`, the shared head of
    the others is tested on all of that site's images.
    """

    label: str
    ensemble: EnsembleRule | None = None

    def description(self) -> dict[str, object]:
        """Return everything that the row's figures depend on, except features and seed; not the label."""
        return {**super().description(), "ensemble": msgspec.to_builtins(self.ensemble)}

    @property
    def shares_a_head(self) -> bool:
        """Whether there is a trained shared head for whoever is no site."""
        return self.method != ZERO_SHOT and self.regime != "local-only"


def read_cases(
    methods: str,
    training: Path | None,
    common: Experiment,
    reference: Target | None = None,
    named: Named = AS_EACH_HAS_IT,
) -> list[Case]:
    """Return a case for each name in `methods` (commas between them, or `all`: with the file's tables).

    A name is a method, a table of the TOML file `training`, or either behind `local-only:` or `pooled:`;
    without a name, `local-only` and `pooled` train fedmedclip. `zero-shot` trains nothing. What a case does
    not say itself is as in `common`, whose method counts for nothing; rounds and codec are the method's own,
    where it has some, unless they are `named`. In the file, settings at the top hold
    for every case, those in the table NAME for NAME and what has no table of its own behind a colon. Beside
    training settings a table may say which `method` it is when NAME is none, its `codec`, `rule` and
    `weighting`, `federated = false` or `pooled = true`, and `target` (a table with `images`, `form`,
    `noise`; or false). Adapting methods adapt to `reference` where there is one. Raises InvalidInputError
    for names, codecs, rules or settings that do not exist, and for a rule that does not suit a method.
    """
    tables = NO_TABLES if training is None else read_tables(training)
    labels = list(dict.fromkeys(name.strip() for name in methods.split(",") if name.strip()))
    if labels == ["all"]:
        labels = list(dict.fromkeys([*known_rows(), *tables.rows]))
    if not labels:
        raise InvalidInputError("--methods is empty; give one or more names with commas between them")
    return [_case(label, tables, common, reference, training, named) for label in labels]


def _case(
    label: str,
    tables: Tables,
    common: Experiment,
    reference: Target | None,
    training: Path | None,
    named: Named,
) -> Case:
    row, settings = tables.of(label)
    named_regime, name = split_row_name(label)
    method = row.method or name
    if method == ZERO_SHOT and named_regime is not None:
        raise InvalidInputError(f"--methods: {label!r}: zero-shot trains nothing; give zero-shot alone")
    if method not in (ZERO_SHOT, *known_methods()):
        known = dict.fromkeys([*known_rows(), *tables.rows])
        where = "--methods" if row.method is None else f"training settings {training}: [{label}] method"
        raise InvalidInputError(f"{where}: {unknown_name('method', method, known)}")
    trained = None if method == ZERO_SHOT else method_named(method)
    codecs = f"{common.uplink_codec}/{common.downlink_codec}"
    codec = row.codec or named.codec or (trained and trained.usual_codec) or codecs
    experiment = with_codec(common, codec)
    delta_codec_named(experiment.uplink_codec)
    # A table of its own says what it is; without one the words before the colon do.
    own = row.regime if label in tables.rows else None
    case = Case(
        **{
            **{field: getattr(experiment, field) for field in Experiment.__struct_fields__},
            "label": label,
            "method": method,
            "rounds": named.rounds or (trained and trained.rounds_needed) or common.rounds,
            "settings": settings,
            "rule": row.rule or common.rule,
            "weighting": row.weighting,
            "regime": own or named_regime or row.regime or "federated",
            "target": row.target or (reference if row.target is None and _asks(method, common) else None),
        }
    )
    # It raises for a rule that cannot be used.
    assert case.rule_name or not case.federated
    return case


def _asks(method: str, common: Experiment) -> bool:
    """Whether a method adapts to the reference set, or speaks of its images in directions of it."""
    if method == ZERO_SHOT:
        return False
    privately = common.privacy.epsilon is not None and adapts_to_versions(method)
    return site_method(method).adapts or privately


def leave_one_out(cases: Sequence[Case], sites: Sequence[str]) -> list[Case]:
    """Return each case that has a shared head without each site in turn."""
    return [
        msgspec.structs.replace(case, left_out=site) for case in cases if case.shares_a_head for site in sites
    ]
