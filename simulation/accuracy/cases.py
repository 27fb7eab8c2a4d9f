"""What is compared: a case is a method with its settings, its codec, and what is switched off in it."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from fedmedclip.aggregator.rules.names import DEFAULT, DEFAULT_OF_STATISTICS
from fedmedclip.edge_client.heads.ensemble import EnsembleRule
from fedmedclip.edge_client.heads.method import site_method
from fedmedclip.edge_client.learning.floors import DEFAULT_FLOORS, Floors
from fedmedclip.edge_client.learning.settings import TrainingSettings
from fedmedclip.protocol.codecs import delta_codec_named
from fedmedclip.protocol.configuration import convert, read_toml
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.heads.shared_heads import known_methods
from fedmedclip.protocol.near_names import unknown_name
from fedmedclip.simulation.federation.coders import codecs_of
from fedmedclip.simulation.federation.evaluation import ZERO_SHOT
from fedmedclip.simulation.federation.targets import Target

LOCAL_ONLY = "local-only"
LOCAL_METHOD = "fedmedclip"
BASELINES = (ZERO_SHOT, LOCAL_ONLY)


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the comparison. `label` is its name for people.

    `method` may also be `zero-shot`, which has nothing to train. Without `federated` each site trains on its
    own, and there is no shared head elsewhere. `target` is what an adapting method adapts to. `masked` False
    keeps every row of every masked layer. `left_out` is a site that does not train; the shared
    head is then tested on all of that site's images instead. `floors` are those of every site.
    """

    label: str
    method: str
    rounds: int
    settings: TrainingSettings
    uplink_codec: str
    downlink_codec: str
    ensemble: EnsembleRule | None = None
    federated: bool = True
    target: Target | None = None
    masked: bool = True
    left_out: str | None = None
    floors: Floors = DEFAULT_FLOORS

    @property
    def identity(self) -> str:
        """Digest of everything that a run's numbers depend on, except features and seed; not of the label."""
        unnamed = msgspec.structs.replace(self, label="")
        rules = f"{DEFAULT} {DEFAULT_OF_STATISTICS}".encode() if self.federated else b""
        return hashlib.sha256(msgspec.json.encode(unnamed, order="deterministic") + rules).hexdigest()


class _Row(TrainingSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table of a file with training settings: of one row of the comparison."""

    method: str | None = None
    codec: str | None = None
    federated: bool | None = None
    target: Target | Literal[False] | None = None


@dataclass(frozen=True)
class _Tables:
    """A file with training settings: its tables, and the settings of each with those at the file's top."""

    rows: dict[str, _Row]
    values: dict[str, dict[str, Any]]
    common: dict[str, Any]

    def settings(self, label: str) -> TrainingSettings:
        """Return the training settings of a row."""
        values = self.values.get(label, self.common)
        names = set(TrainingSettings.__struct_fields__)
        return msgspec.convert({name: values[name] for name in values.keys() & names}, TrainingSettings)


def read_cases(
    methods: str,
    training: Path | None,
    codec: str,
    rounds: int,
    reference: Target | None = None,
    floors: Floors = DEFAULT_FLOORS,
) -> list[Case]:
    """Return a case for each name in `methods` (commas between them, or `all`: with the file's tables).

    A name is a known method, a baseline (`zero-shot`, `local-only`), or a table of the TOML file `training`.
    There, settings at the top hold for every case, those in the table NAME for that case only. Beside
    training settings a table may say which `method` it is when NAME is none, its `codec`,
    `federated = false`, and `target` (a table with `images`, `form`, `noise`; or false). Adapting methods
    adapt to `reference` where there is one. Raises InvalidInputError for names, codecs or settings that do
    not exist.
    """
    tables = _Tables({}, {}, {}) if training is None else _read_tables(training)
    labels = list(dict.fromkeys(name.strip() for name in methods.split(",") if name.strip()))
    if labels == ["all"]:
        labels = list(dict.fromkeys([*BASELINES, *known_methods(), *tables.rows]))
    if not labels:
        raise InvalidInputError("--methods is empty; give one or more names with commas between them")
    cases = []
    for label in labels:
        row = tables.rows.get(label, _Row())
        method = row.method or label
        federated = label != LOCAL_ONLY if row.federated is None else row.federated
        if method == LOCAL_ONLY:
            method = LOCAL_METHOD
        if method not in (ZERO_SHOT, *known_methods()):
            known = dict.fromkeys([*BASELINES, *known_methods(), *tables.rows])
            where = "--methods" if row.method is None else f"training settings {training}: [{label}] method"
            raise InvalidInputError(f"{where}: {unknown_name('method', method, known)}")
        uplink, downlink = _codecs(row.codec or codec)
        target = row.target
        if target is None:
            target = reference if _adapts(method) else None
        cases.append(
            Case(
                label=label,
                method=method,
                rounds=rounds,
                settings=tables.settings(label),
                uplink_codec=uplink,
                downlink_codec=downlink,
                federated=federated,
                target=target or None,
                floors=floors,
            )
        )
    return cases


def _adapts(method: str) -> bool:
    return method != ZERO_SHOT and site_method(method).adapts


def _codecs(name: str) -> tuple[str, str]:
    """Return uplink and downlink codec, both of deltas: what a federation can use."""
    uplink, downlink = codecs_of(name)
    delta_codec_named(uplink)
    return uplink, downlink


def leave_one_out(cases: Sequence[Case], sites: Sequence[str]) -> list[Case]:
    """Return each case that has a shared head without each site in turn."""
    return [
        msgspec.structs.replace(case, left_out=site)
        for case in cases
        if case.federated and case.method != ZERO_SHOT
        for site in sites
    ]


def _read_tables(path: Path) -> _Tables:
    """Return what a file with training settings holds. Every table is looked at, also those not asked for."""
    where = f"training settings {path}"
    content = read_toml(path, "training settings")
    common = {name: value for name, value in content.items() if not isinstance(value, dict)}
    given = {name: value for name, value in content.items() if isinstance(value, dict)}
    convert(common, TrainingSettings, where)
    rows = {name: convert(value, _Row, where, table=name) for name, value in given.items()}
    known = [*BASELINES, *known_methods()]
    for name, row in rows.items():
        if row.method is None and name not in known:
            line = unknown_name("method", name, known)
            raise InvalidInputError(f"{where}: [{name}] names an {line}; or say in it which `method` it is")
    return _Tables(rows, {name: {**common, **value} for name, value in given.items()}, common)
