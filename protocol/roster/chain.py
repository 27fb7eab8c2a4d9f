"""The roster as bytes: a chain of signed records to which one can only append.

    4 bytes   b"FMR" 0x01
    n bytes   a MessagePack array of records; each is an array of two binaries, body and signatures

A body is the MessagePack array [number, previous, at, entry]: the records count from 0; `previous` is the
SHA-256 of body and signatures of the record before, 32 zero bytes in the first; `at` is when it was made,
seconds since 1970. The signature, 64 bytes, is the coordinator's (Ed25519) over

    b"fedmedclip roster" 0x00 <body>

with the key that the records before name: the first record is signed with the key in it, and after a
KeyRotated the new key signs. A KeyRotated itself has 64 bytes more, the signature of the new key over the
same: nobody leads a chain of his own to a key that he does not hold. So whoever trusts one of these keys can
tell that none of the records before its last was altered, left out or put elsewhere.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated

import msgspec
from msgspec import Meta

from fedmedclip.protocol.errors import InvalidInputError, MessageError
from fedmedclip.protocol.malformed import MALFORMED
from fedmedclip.protocol.messages import Digest
from fedmedclip.protocol.roster.entries import Entry, Founded, KeyRotated, Seconds
from fedmedclip.protocol.roster.members import Members
from fedmedclip.protocol.signature import SIGNATURE_BYTES, SigningKey, is_signed_by

MAGIC = b"FMR\x01"
MAXIMUM_RECORDS = 100_000
MAXIMUM_BYTES = 1 << 25
_DOMAIN = b"fedmedclip roster\0"
_NOTHING_BEFORE = bytes(32)


class _Body(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    number: Annotated[int, Meta(ge=0, lt=MAXIMUM_RECORDS)]
    previous: Digest
    at: Seconds
    entry: Entry


class _Signed(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    body: Annotated[bytes, Meta(max_length=2048)]
    signatures: Annotated[bytes, Meta(min_length=SIGNATURE_BYTES, max_length=2 * SIGNATURE_BYTES)]


_records: msgspec.msgpack.Decoder[list[_Signed]] = msgspec.msgpack.Decoder(
    Annotated[list[_Signed], Meta(min_length=1, max_length=MAXIMUM_RECORDS)]
)
_body = msgspec.msgpack.Decoder(_Body)


@dataclass(frozen=True)
class Record:
    """One verified record, as it is signed, and what it says."""

    body: bytes
    signatures: bytes
    number: int
    at: int
    entry: Entry

    @property
    def digest(self) -> bytes:
        """SHA-256 of body and signatures, which the next record names."""
        return hashlib.sha256(self.body + self.signatures).digest()


@dataclass(frozen=True)
class Roster:
    """A verified chain of records, the first of which founds the federation."""

    records: tuple[Record, ...]

    @cached_property
    def encoded(self) -> bytes:
        """The bytes that are stored and sent."""
        signed = [_Signed(record.body, record.signatures) for record in self.records]
        return MAGIC + msgspec.msgpack.encode(signed)

    @property
    def digest(self) -> bytes:
        """The newest record's digest: it stands for all records."""
        return self.records[-1].digest

    @property
    def founded(self) -> Founded:
        """The first record's entry."""
        entry = self.records[0].entry
        assert isinstance(entry, Founded)
        return entry

    @property
    def federation(self) -> str:
        """The federation's name."""
        return self.founded.federation

    @cached_property
    def coordinator_keys(self) -> tuple[bytes, ...]:
        """Every key with which the coordinator has signed, oldest first; the last is the one of today."""
        entries = (record.entry for record in self.records)
        return tuple(entry.coordinator_key for entry in entries if isinstance(entry, Founded | KeyRotated))

    @property
    def coordinator_key(self) -> bytes:
        """The key with which the coordinator signs today, 32 raw bytes."""
        return self.coordinator_keys[-1]

    @cached_property
    def members(self) -> Members:
        """Who is, and was, a member."""
        members = Members()
        for record in self.records:
            members.apply(record.entry, record.at)
        return members

    def continues(self, earlier: "Roster") -> bool:
        """Whether all records of an earlier roster stand unchanged at the beginning of this one."""
        count = len(earlier.records)
        return len(self.records) >= count and self.records[count - 1].digest == earlier.digest

    def with_entry(
        self, entry: Entry, key: SigningKey, at: int, new_key: SigningKey | None = None
    ) -> "Roster":
        """Return the roster with one record more, made at `at` seconds since 1970.

        A KeyRotated is signed by `new_key` too. Raises InvalidInputError when the key is not the
        coordinator's of today, or the entry does not fit what the roster says (one is revoked who is no
        member, a name is admitted that is taken).
        """
        if key.public_key != self.coordinator_key:
            raise InvalidInputError(
                f"the roster of {self.federation!r} is signed with key {self.coordinator_key.hex()}, "
                f"this is {key.public_key.hex()}; use the coordinator's key of today"
            )
        try:
            self.members.copy().apply(entry, at)
        except MessageError as error:
            raise InvalidInputError(str(error)) from error
        # A clock that was set back does not make the order doubtful.
        moment = max(at, self.records[-1].at)
        signers = [key] if new_key is None else [key, new_key]
        return Roster((*self.records, _made(len(self.records), self.digest, moment, entry, signers)))


def found(federation: str, authority: bytes, key: SigningKey, at: int) -> Roster:
    """Return the roster of a new federation. `authority`: SHA-256 of the CA's certificate in DER."""
    entry = Founded(federation, key.public_key, authority)
    return Roster((_made(0, _NOTHING_BEFORE, at, entry, [key]),))


def open_roster(encoded: bytes, known: Roster | None = None) -> Roster:
    """Return the verified roster in `encoded`: every signature, every link, and what the records say.

    With `known` it has to continue that one, whose records are not verified again. Without, it says who
    signed it, not whether that is who it should be: compare `coordinator_keys` with a key that is trusted.
    Raises MessageError.
    """
    signed = _signed(encoded)
    records = [] if known is None else list(known.records)
    if len(signed) < len(records):
        raise MessageError(f"an old copy of the roster: {len(signed)} records, {len(records)} are known here")
    for record, item in zip(records, signed, strict=False):
        if (record.body, record.signatures) != (item.body, item.signatures):
            raise MessageError(
                f"record {record.number} of this roster is another than the one that is known here: the "
                "coordinator has signed two histories, or a backup was restored there; ask"
            )
    members = Members() if known is None else known.members.copy()
    key = b"" if known is None else known.coordinator_key
    for item in signed[len(records) :]:
        record, key = _verified(item, records[-1] if records else None, key)
        members.apply(record.entry, record.at)
        records.append(record)
    return Roster(tuple(records))


def _signed(encoded: bytes) -> list[_Signed]:
    if len(encoded) > MAXIMUM_BYTES:
        raise MessageError(f"a roster of {len(encoded)} bytes; at most {MAXIMUM_BYTES} are read")
    if encoded[: len(MAGIC)] != MAGIC:
        raise MessageError("these bytes are no roster of this version of the format")
    try:
        return _records.decode(memoryview(encoded)[len(MAGIC) :])
    except MALFORMED as error:
        raise MessageError(f"malformed roster: {error}") from error


def _verified(item: _Signed, before: Record | None, key: bytes) -> tuple[Record, bytes]:
    """Return a record that follows `before` and is signed as it must be, and whose key signs the next."""
    number = 0 if before is None else before.number + 1
    body = _decoded(item.body, number)
    if isinstance(body.entry, Founded) != (before is None):
        raise MessageError("a roster's first record founds the federation, and no other does")
    previous, at = (_NOTHING_BEFORE, 0) if before is None else (before.digest, before.at)
    if body.number != number or body.previous != previous or body.at < at:
        raise MessageError(f"record {number} of a roster does not follow the one before it")
    signers = [key]
    if isinstance(body.entry, Founded):
        signers = [body.entry.coordinator_key]
    elif isinstance(body.entry, KeyRotated):
        signers = [key, body.entry.coordinator_key]
    signatures = [
        item.signatures[start : start + SIGNATURE_BYTES]
        for start in range(0, len(item.signatures), SIGNATURE_BYTES)
    ]
    if len(signatures) != len(signers) or not all(
        is_signed_by(signer, signature, _DOMAIN + item.body)
        for signer, signature in zip(signers, signatures, strict=True)
    ):
        raise MessageError(f"record {number} of a roster is not signed by the coordinator of that moment")
    return Record(item.body, item.signatures, number, body.at, body.entry), signers[-1]


def _decoded(body: bytes, number: int) -> _Body:
    try:
        return _body.decode(body)
    except MALFORMED as error:
        raise MessageError(f"malformed record {number} of a roster: {error}") from error


def _made(number: int, previous: bytes, at: int, entry: Entry, signers: list[SigningKey]) -> Record:
    body = msgspec.msgpack.encode(_Body(number, previous, at, entry))
    # What is made here is read elsewhere under these bounds.
    try:
        _decoded(body, number)
    except MessageError as error:
        raise InvalidInputError(str(error)) from error
    signatures = b"".join(signer.sign(_DOMAIN + body) for signer in signers)
    return Record(body, signatures, number, at, entry)
