"""Which version a coordinator means: its number, or `best`."""

from pathlib import Path

from fedmedclip.aggregator.configuration import AggregatorConfiguration
from fedmedclip.aggregator.opened_store import database_of, opened_store
from fedmedclip.aggregator.version_metrics import best_version
from fedmedclip.protocol.configuration import read_configuration
from fedmedclip.protocol.errors import InvalidInputError

BEST = "best"
MOST = 1_000_000


def chosen_version(configuration_file: Path, word: str) -> int:
    """Return the version of an aggregator's run that a word means; the aggregator may run meanwhile.

    Raises InvalidInputError for what is neither a version's number nor `best`, and where no version is known
    to be the best.
    """
    if word != BEST:
        if not (word.isascii() and word.isdecimal() and int(word) <= MOST):
            raise InvalidInputError(f"{word!r} is no version; give its number, or {BEST}")
        return int(word)
    settings = read_configuration(configuration_file, AggregatorConfiguration).federation
    with opened_store(database_of(configuration_file)) as store:
        version = best_version(store, settings.maximum_share)
    if version is None:
        raise InvalidInputError(
            "no version is known to be the best: too few sites share how good each is there; give a number"
        )
    return version
