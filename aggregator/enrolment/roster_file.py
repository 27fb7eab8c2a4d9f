"""A roster as a file: read by people, and taken over from a hospital after a backup was restored."""

import time
from pathlib import Path

import msgspec

from fedmedclip.aggregator.enrolment.folder import FederationFolder
from fedmedclip.protocol.errors import InvalidInputError, MessageError
from fedmedclip.protocol.new_files import write_new_file
from fedmedclip.protocol.roster.chain import MAXIMUM_BYTES, Roster, open_roster
from fedmedclip.protocol.roster.entries import (
    Admitted,
    Entry,
    Founded,
    KeyRotated,
    Renewed,
    Revoked,
    WeightLimited,
)


class RecordRow(msgspec.Struct, frozen=True):
    """One record: `at` in seconds since 1970, `digest` the SHA-256 that the next record names."""

    number: int
    at: int
    entry: str
    site: str
    says: str
    digest: str


def read_roster_file(path: Path) -> Roster:
    """Return the verified roster in a file. Raises InvalidInputError."""
    try:
        with path.open("rb") as file:
            return open_roster(file.read(MAXIMUM_BYTES + 1))
    except (OSError, MessageError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InvalidInputError(f"roster {path}: {reason}") from error


def record_rows(roster: Roster) -> list[RecordRow]:
    """Return a row for each record."""
    return [
        RecordRow(
            record.number,
            record.at,
            type(record.entry).__name__,
            getattr(record.entry, "site", ""),
            in_words(record.entry),
            record.digest.hex(),
        )
        for record in roster.records
    ]


def in_words(entry: Entry) -> str:
    """Return what a record says beside the site's name."""
    match entry:
        case Founded(federation, coordinator_key, authority):
            return f"{federation}; key {coordinator_key.hex()}; authority {authority.hex()}"
        case Admitted():
            return (
                f"key {entry.public_key.hex()}; at most {entry.most_samples} samples; approved by "
                f"{entry.approved_by or '?'}; certificate {entry.certificate.hex()}"
            )
        case Renewed(_, certificate, _):
            return f"certificate {certificate.hex()}"
        case Revoked(_, reason):
            return reason
        case KeyRotated(coordinator_key):
            return f"key {coordinator_key.hex()}"
        case WeightLimited(_, most_samples):
            return f"at most {most_samples} samples"


def adopt(folder: FederationFolder, theirs: Roster) -> tuple[Roster, Path]:
    """Put a roster that somebody else kept in the place of ours, which is kept beside it.

    It need not continue ours: hospitals refuse what does not continue theirs, so where a backup was restored
    and changed since, it is ours that has to go. Returns ours and its new file. Raises InvalidInputError for
    a roster that says nothing new, is of another federation, or is signed with another key than the folder's.
    """
    with folder.changing():
        ours = folder.roster()
        if theirs.records[0].digest != ours.records[0].digest:
            raise InvalidInputError(f"it is the roster of another federation than {folder.path}")
        if ours.continues(theirs):
            raise InvalidInputError(
                f"it has {len(theirs.records)} records, which are in the {len(ours.records)} here already"
            )
        if theirs.coordinator_key != folder.key().public_key:
            raise InvalidInputError(
                f"it is signed with key {theirs.coordinator_key.hex()} now, which this folder does not have; "
                f"restore that {folder.key_file} first"
            )
        aside = folder.path / time.strftime("roster-before-%Y%m%d-%H%M%S")
        write_new_file(aside, ours.encoded)
        write_new_file(folder.roster_file, theirs.encoded)
        return ours, aside
