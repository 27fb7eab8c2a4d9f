"""An aggregator's database for another process, or another thread of its own."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedmedclip.aggregator.configuration import AggregatorConfiguration
from fedmedclip.aggregator.store import Store
from fedmedclip.protocol.configuration import beside, read_configuration
from fedmedclip.protocol.errors import InvalidInputError


def database_of(configuration_file: Path) -> Path:
    """Return where the database of a configuration's aggregator lies, whether it is there or not."""
    settings = read_configuration(configuration_file, AggregatorConfiguration).federation
    return beside(configuration_file, settings.state) / "aggregator.db"


@contextmanager
def opened_store(database: Path) -> Iterator[Store]:
    """Open a database, whether its aggregator runs or not. Raises InvalidInputError where there is none."""
    if not database.is_file():
        raise InvalidInputError(f"{database} does not exist: this aggregator has not begun a run")
    store = Store(database)
    try:
        yield store
    finally:
        store.close()
