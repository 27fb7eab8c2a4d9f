"""What a backup of the aggregator holds beside its database, and which of it is put back."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedmedclip.aggregator.configuration import AggregatorConfiguration, key_file_of
from fedmedclip.aggregator.enrolment.folder import locked
from fedmedclip.aggregator.enrolment.roster_file import read_roster_file
from fedmedclip.protocol.configuration import beside, read_configuration
from fedmedclip.protocol.errors import InvalidInputError

ROSTER = "roster"


@contextmanager
def held_still(configuration_file: Path) -> Iterator[None]:
    """Within the block, nobody changes the federation's folder, where there is one: key and roster fit."""
    roster = read_configuration(configuration_file, AggregatorConfiguration).federation.roster
    if roster is None:
        yield
        return
    with locked(beside(configuration_file, roster).parent):
        yield


def files_of(configuration_file: Path) -> dict[str, Path]:
    """Return the files of an aggregator that belong into its backup, by their names there."""
    configuration = read_configuration(configuration_file, AggregatorConfiguration)
    key = key_file_of(configuration_file, configuration)
    files = {key.name: key}
    if configuration.federation.roster is not None:
        files[ROSTER] = beside(configuration_file, configuration.federation.roster)
    return files


def files_to_restore(configuration_file: Path, backup: Path) -> tuple[dict[str, Path], str]:
    """Return the files of a backup that are to be put back, and a sentence on those that are not.

    A roster that continues the backup's stays, with the key that signs it: it may know of a revocation, or of
    a rotated key, that the backup does not. Raises InvalidInputError when neither continues the other.
    """
    files = files_of(configuration_file)
    if ROSTER not in files or not files[ROSTER].exists():
        return files, ""
    ours, theirs = read_roster_file(files[ROSTER]), read_roster_file(backup / ROSTER)
    if ours.continues(theirs):
        more = len(ours.records) - len(theirs.records)
        return {}, f"the roster and its key stay: they are the backup's, and {more} records longer"
    if not theirs.continues(ours):
        raise InvalidInputError(
            f"the roster {files[ROSTER]} and the backup's are two histories, of which hospitals follow "
            "one; move the wrong one away"
        )
    return files, ""
