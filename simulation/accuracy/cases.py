"""What is compared: a case is a method with its settings, its codec, and what is switched off in it."""

import hashlib
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from fedmedclip.edge_client.heads.ensemble import EnsembleRule
from fedmedclip.edge_client.learning.methods import ADAPTING_METHODS
from fedmedclip.edge_client.learning.settings import TrainingSettings
from fedmedclip.protocol.codecs import delta_codec_named
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.heads.shared_heads import known_methods
from fedmedclip.simulation.federation.coders import codecs_of
from fedmedclip.simulation.federation.evaluation import ZERO_SHOT
from fedmedclip.simulation.federation.plan import settings_of
from fedmedclip.simulation.federation.targets import Target

LOCAL_ONLY = "local-only"
LOCAL_METHOD = "fedmedclip"
BASELINES = (ZERO_SHOT, LOCAL_ONLY)


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the comparison. `label` is its name for people.

    `method` may also be `zero-shot`, which has nothing to train. Without `federated` each site trains on its
    own, and there is no shared head elsewhere. `target` is what an adapting method adapts to. `masked` False
    keeps every row of every masked layer. `left_out` is a site that does not train; the shared
    head is then tested on all of that site's images instead.
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

    @property
    def identity(self) -> str:
        """Digest of everything that a run's numbers depend on, except features and seed; not of the label."""
        unnamed = msgspec.structs.replace(self, label="")
        return hashlib.sha256(msgspec.json.encode(unnamed, order="deterministic")).hexdigest()


def read_cases(
    methods: str, training: Path | None, codec: str, rounds: int, reference: Target | None = None
) -> list[Case]:
    """Return a case for each name in `methods` (commas between them, or `all`: with the file's tables).

    A name is a known method, a baseline (`zero-shot`, `local-only`), or a table of the TOML file `training`.
    There, settings at the top hold for every case, those in the table NAME for that case only. Beside
    training settings a table may say which `method` it is when NAME is none, its `codec`,
    `federated = false`, and `target` (a table with `images`, `form`, `noise`; or false). Adapting methods
    adapt to `reference` where there is one. Raises InvalidInputError for names, codecs or settings that do
    not exist.
    """
    tables = {} if training is None else _read_toml(training)
    common = {name: value for name, value in tables.items() if not isinstance(value, dict)}
    labels = list(dict.fromkeys(name.strip() for name in methods.split(",") if name.strip()))
    if labels == ["all"]:
        labels = list(dict.fromkeys([*BASELINES, *known_methods(), *_table_names(tables)]))
    if not labels:
        raise InvalidInputError("--methods is empty; give one or more names with commas between them")
    cases = []
    for label in labels:
        own = dict(tables.get(label, {}))
        method, federated = own.pop("method", label), own.pop("federated", label != LOCAL_ONLY)
        if method == LOCAL_ONLY:
            method = LOCAL_METHOD
        if method not in (ZERO_SHOT, *known_methods()):
            known = ", ".join([*BASELINES, *known_methods()])
            raise InvalidInputError(
                f"unknown method {method!r} in --methods; known methods: {known}"
                + (f"; tables in {training}: {', '.join(_table_names(tables))}" if training else "")
            )
        target = own.pop("target", None)
        uplink, downlink = _codecs(own.pop("codec", codec))
        cases.append(
            Case(
                label=label,
                method=method,
                rounds=rounds,
                settings=settings_of({**common, **own}, label),
                uplink_codec=uplink,
                downlink_codec=downlink,
                federated=federated,
                target=_target(target, label, reference if method in ADAPTING_METHODS else None),
            )
        )
    return cases


def _codecs(name: str) -> tuple[str, str]:
    """Return uplink and downlink codec, both of deltas: what a federation can use."""
    uplink, downlink = codecs_of(name)
    delta_codec_named(uplink)
    return uplink, downlink


def _target(given: object, label: str, default: Target | None) -> Target | None:
    if given is None or given is False:
        return default if given is None else None
    try:
        return msgspec.convert(given, Target)
    except msgspec.ValidationError as error:
        raise InvalidInputError(f"target of {label!r}: {error}") from error


def leave_one_out(cases: Sequence[Case], sites: Sequence[str]) -> list[Case]:
    """Return each case that has a shared head without each site in turn."""
    return [
        msgspec.structs.replace(case, left_out=site)
        for case in cases
        if case.federated and case.method != ZERO_SHOT
        for site in sites
    ]


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidInputError(
            f"training settings {path} cannot be read ({error}); give a TOML file"
        ) from error


def _table_names(tables: dict[str, Any]) -> list[str]:
    return [name for name, value in tables.items() if isinstance(value, dict)]
