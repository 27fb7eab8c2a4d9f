"""Which version a coordinator means: its number, or `best`."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedmedclip.aggregator.configuration import AggregatorConfiguration, FederationSettings
from fedmedclip.aggregator.store import Store
from fedmedclip.aggregator.version_metrics import best_version
from fedmedclip.protocol.configuration import beside, read_configuration
from fedmedclip.protocol.errors import InvalidInputError

BEST = "best"
MOST = 1_000_000


@contextmanager
def store_of(configuration_file: Path) -> Iterator[tuple[Store, FederationSettings]]:
    """Open the state of an aggregator to read, whether it runs or not; give its settings with it.

    Raises InvalidInputError where there is none.
    """
    settings = read_configuration(configuration_file, AggregatorConfiguration).federation
    database = beside(configuration_file, settings.state) / "aggregator.db"
    if not database.is_file():
        raise InvalidInputError(f"{database} does not exist: this aggregator has not begun a run")
    store = Store(database)
    try:
        yield store, settings
    finally:
        store.close()


def chosen_version(configuration_file: Path, word: str) -> int:
    """Return the version of an aggregator's run that a word means; the aggregator may run meanwhile.

    Raises InvalidInputError for what is neither a version's number nor `best`, and where no version is known
    to be the best.
    """
    if word != BEST:
        if not (word.isascii() and word.isdecimal() and int(word) <= MOST):
            raise InvalidInputError(f"{word!r} is no version; give its number, or {BEST}")
        return int(word)
    with store_of(configuration_file) as (store, settings):
        version = best_version(store, settings.maximum_share)
    if version is None:
        raise InvalidInputError(
            "no version is known to be the best: too few sites share how good each is there; give a number"
        )
    return version
