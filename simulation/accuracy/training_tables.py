"""The file of `--training`: settings at its top for every row, and a table for each row of its own."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from fedmedclip.aggregator.weights import Weighting
from fedmedclip.edge_client.learning.settings import TrainingSettings
from fedmedclip.protocol.configuration import convert, read_toml
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.near_names import unknown_name
from fedmedclip.simulation.accuracy.row_names import known_rows, split_row_name
from fedmedclip.simulation.federation.experiment import Regime
from fedmedclip.simulation.federation.targets import Target


class Row(TrainingSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table of the file: of one row of the comparison."""

    method: str | None = None
    codec: str | None = None
    rule: str | None = None
    weighting: Weighting = "samples"
    federated: bool | None = None
    pooled: bool = False
    target: Target | Literal[False] | None = None

    @property
    def regime(self) -> Regime | None:
        """Who trains, where the table says so."""
        if self.pooled:
            return "pooled"
        return None if self.federated is None else "federated" if self.federated else "local-only"


@dataclass(frozen=True)
class Tables:
    """The file's tables, and the settings of each with those at the file's top."""

    rows: dict[str, Row]
    values: dict[str, dict[str, Any]]
    common: dict[str, Any]

    def of(self, label: str) -> tuple[Row, TrainingSettings]:
        """Return a row's table and settings: its own, or those of the row that its name has after the colon.

        Without either the table is empty.
        """
        found = label if label in self.rows else split_row_name(label)[1]
        values = self.values.get(found, self.common)
        names = set(TrainingSettings.__struct_fields__)
        settings = msgspec.convert({name: values[name] for name in values.keys() & names}, TrainingSettings)
        return self.rows.get(found, Row()), settings


NO_TABLES = Tables({}, {}, {})


def read_tables(path: Path) -> Tables:
    """Return what a file holds. Every table is looked at, also those not asked for.

    Raises InvalidInputError for settings, methods or values that do not exist.
    """
    where = f"training settings {path}"
    content = read_toml(path, "training settings")
    common = {name: value for name, value in content.items() if not isinstance(value, dict)}
    given = {name: value for name, value in content.items() if isinstance(value, dict)}
    convert(common, TrainingSettings, where)
    rows = {name: convert(value, Row, where, table=name) for name, value in given.items()}
    for name, row in rows.items():
        if row.method is None and split_row_name(name)[1] not in known_rows():
            line = unknown_name("method", name, known_rows())
            raise InvalidInputError(f"{where}: [{name}] names an {line}; or say in it which `method` it is")
        if row.pooled and row.federated:
            raise InvalidInputError(f"{where}: [{name}] is both federated and pooled; give one of the two")
    return Tables(rows, {name: {**common, **value} for name, value in given.items()}, common)
