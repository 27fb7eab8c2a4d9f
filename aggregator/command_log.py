"""The record of the operator's commands: who, when, what, and the answer, chained and signed.

    record n = what was asked and answered, with the hash of record n - 1, signed by the aggregator's key
    end      = number and hash of the last record, signed too

So a record that was changed, added, put elsewhere or taken out is found, also the last ones. Whoever can put
the whole state of an earlier day in its place takes the record back with it: keep the end's hash elsewhere.
"""

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import msgspec

from fedmedclip.protocol.database import Database
from fedmedclip.protocol.malformed import MALFORMED
from fedmedclip.protocol.signature import SigningKey, is_signed_by

COMMAND_LOG_SCHEMA = """
CREATE TABLE IF NOT EXISTS command_log (number INTEGER PRIMARY KEY, record BLOB NOT NULL, signature BLOB);
CREATE TABLE IF NOT EXISTS command_log_end (
    id INTEGER PRIMARY KEY CHECK (id = 1), end BLOB NOT NULL, signature BLOB);
"""
_OF_RECORD, _OF_END = b"fedmedclip command record\0", b"fedmedclip command log end\0"
_FIRST = "0" * 64


class CommandRecord(msgspec.Struct, frozen=True):
    """A command that was carried out, or refused (`failed`). Times are seconds since 1970.

    `asked` is its number among those that were given, `command` its JSON. `version` is the run's newest
    version then. `key` is the public key that signs the record, in hexadecimal, as `previous` is: the hash
    of the record before.
    """

    number: int
    asked: int
    given_at: float
    done_at: float
    by: str
    command: str
    answer: str
    failed: bool
    run: int
    version: int
    key: str
    previous: str


class _End(msgspec.Struct, frozen=True):
    number: int
    hash: str
    key: str


@dataclass(frozen=True)
class Verdict:
    """What a look at the whole record found. `faults` are sentences; none: it is whole up to `end`."""

    records: int
    end: str
    keys: tuple[str, ...]
    faults: tuple[str, ...]


class CommandLog:
    """The record in an aggregator's database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def append(
        self,
        key: SigningKey,
        *,
        asked: int,
        given_at: float,
        done_at: float,
        by: str,
        command: str,
        answer: str,
        failed: bool,
        run: int,
        version: int,
    ) -> None:
        """Record a command. It is on disk when this returns, or with the transaction around it."""
        with self._database.transaction() as database:
            last = self._database.row("SELECT number, record FROM command_log ORDER BY number DESC LIMIT 1")
            number, previous = (1, _FIRST) if last is None else (last[0] + 1, _hash_of(last[1]))
            signer = key.public_key.hex()
            record = CommandRecord(
                number, asked, given_at, done_at, by, command, answer, failed, run, version, signer, previous
            )
            encoded = msgspec.json.encode(record)
            end = msgspec.json.encode(_End(number, _hash_of(encoded), signer))
            database.execute(
                "INSERT INTO command_log VALUES (?, ?, ?)", (number, encoded, key.sign(_OF_RECORD + encoded))
            )
            database.execute(
                "INSERT OR REPLACE INTO command_log_end VALUES (1, ?, ?)", (end, key.sign(_OF_END + end))
            )

    def records(self, after: int = 0) -> list[CommandRecord]:
        """Return the records with a greater number than `after`, oldest first. Raises StorageError."""
        rows = self._database.rows(
            "SELECT record FROM command_log WHERE number > ? ORDER BY number", (after,)
        )
        return [
            self._database.decoded(record, CommandRecord, "a command's record", msgspec.json)
            for (record,) in rows
        ]

    def verify(self, keys: Collection[bytes]) -> Verdict:
        """Look at every record; `keys` are those that the aggregator has or had.

        Commands that were carried out without leaving a record are missing ones.
        """
        rows = self._database.rows("SELECT number, record, signature FROM command_log ORDER BY number")
        known = {key.hex() for key in keys}
        faults, records = _faults_of_chain(rows, known)
        end = _hash_of(rows[-1][1]) if rows else _FIRST
        faults += self._faults_of_end(rows, end, known)
        recorded = {record.asked for record in records}
        first = min(recorded, default=0)
        for (asked,) in self._database.rows("SELECT id FROM commands WHERE done_at AND id > ?", (first,)):
            if rows and asked not in recorded:
                faults.append(f"command {asked} was carried out and has no record")
        return Verdict(len(rows), end, tuple(sorted({record.key for record in records})), tuple(faults))

    def _faults_of_end(
        self, rows: Sequence[tuple[int, bytes, bytes]], end: str, known: set[str]
    ) -> list[str]:
        found = self._database.row("SELECT end, signature FROM command_log_end")
        if found is None:
            return ["the record's end is missing"] if rows else []
        try:
            said = msgspec.json.decode(found[0], type=_End)
        except MALFORMED as error:
            return [f"the record's end cannot be read: {error}"]
        signed = said.key in known and is_signed_by(
            bytes.fromhex(said.key), found[1] or b"", _OF_END + found[0]
        )
        if not signed:
            return ["the record's end is not signed by this aggregator"]
        number = rows[-1][0] if rows else 0
        if (said.number, said.hash) != (number, end):
            return [f"the record ends with {number}, and is said to end with {said.number}: some are missing"]
        return []


def _faults_of_chain(
    rows: Sequence[tuple[int, bytes, bytes]], known: set[str]
) -> tuple[list[str], list[CommandRecord]]:
    faults: list[str] = []
    records: list[CommandRecord] = []
    previous = _FIRST
    for expected, (number, encoded, signature) in enumerate(rows, start=1):
        try:
            record = msgspec.json.decode(encoded, type=CommandRecord)
        except MALFORMED as error:
            faults.append(f"record {number} cannot be read: {error}")
            previous = _hash_of(encoded)
            continue
        if number != expected or record.number != number:
            faults.append(f"record {number} stands where {expected} belongs: some are missing or were added")
        if record.previous != previous:
            faults.append(f"record {number} does not follow the one before it")
        if record.key not in known:
            faults.append(f"record {number} is signed by {record.key[:16]}, no key of this aggregator")
        elif not is_signed_by(bytes.fromhex(record.key), signature or b"", _OF_RECORD + encoded):
            faults.append(f"record {number} was changed: its signature is wrong")
        previous = _hash_of(encoded)
        records.append(record)
    return faults, records


def _hash_of(encoded: bytes) -> str:
    return hashlib.sha256(encoded).hexdigest()
