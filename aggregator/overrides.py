"""Settings of `[federation]` that a command has changed: each wins over the file until it is edited there."""

import msgspec

from fedmedclip.aggregator.configuration import AggregatorConfiguration
from fedmedclip.protocol.configuration import convert
from fedmedclip.protocol.database import Database

OVERRIDES_SCHEMA = """
CREATE TABLE IF NOT EXISTS overrides (name TEXT PRIMARY KEY, value BLOB NOT NULL, configured BLOB NOT NULL);
"""

Value = str | int | float


class Overrides:
    """The changed settings, in an aggregator's database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def set(self, name: str, value: Value, configured: Value) -> None:
        """Let a setting have another value than the file; `configured` is what it has at the moment."""
        with self._database.transaction() as database:
            # What stands in the file stays that of the first change: the later ones found the changed value.
            database.execute(
                "INSERT INTO overrides VALUES (?, ?, ?)"
                " ON CONFLICT (name) DO UPDATE SET value = excluded.value",
                (name, msgspec.json.encode(value), msgspec.json.encode(configured)),
            )

    def applied(self, written: AggregatorConfiguration) -> AggregatorConfiguration:
        """Return a configuration as it counts; a change whose setting was edited in the file since is over.

        Raises InvalidInputError where what was changed does not go with the rest.
        """
        changed: dict[str, object] = {}
        for name, value, configured in self._database.rows("SELECT name, value, configured FROM overrides"):
            found = getattr(written.federation, name, None)
            if msgspec.json.encode(found) == configured:
                changed[name] = msgspec.json.decode(value)
                continue
            with self._database.transaction() as database:
                database.execute("DELETE FROM overrides WHERE name = ?", (name,))
        if not changed:
            return written
        federation = convert(
            msgspec.to_builtins(written.federation) | changed,
            type(written.federation),
            "what commands changed",
            table="federation",
        )
        return msgspec.structs.replace(written, federation=federation)
