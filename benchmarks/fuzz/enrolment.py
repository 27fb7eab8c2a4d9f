"""How a site becomes a member: invitation, request, answer, roster. What is changed is signed again."""

import hashlib
import re
import tomllib
from functools import cache

import msgspec

from benchmarks.fuzz.examples import key
from benchmarks.fuzz.mutations import after, by_section, mutated_bytes, mutated_msgpack, mutated_text
from benchmarks.fuzz.sections import Section, join, split
from benchmarks.fuzz.target import Target, always
from fedmedclip.protocol.enrolment import answer as answers
from fedmedclip.protocol.enrolment import request as requests
from fedmedclip.protocol.enrolment.invitation import (
    Invitation,
    invitation_text,
    read_invitation,
    require_open,
    sign_invitation,
)
from fedmedclip.protocol.enrolment.token import invitation_number, proof_of
from fedmedclip.protocol.errors import InvalidInputError, MessageError
from fedmedclip.protocol.roster import chain
from fedmedclip.protocol.roster.entries import Admitted, Entry, KeyRotated, Renewed, Revoked, WeightLimited

_TOKEN = bytes(range(32))
_FEDERATION, _SITE, _NOW = "golden", "site-a", 1500
_RAW = b"\xff"
_PEM = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
_DIGEST = bytes(32)
_FORGED = 0x80
_SIGNATURE = re.compile(r'signature = "[^"]*"')


def _invitation() -> Invitation:
    coordinator = key("aggregator")
    return Invitation(
        1, _FEDERATION, _SITE, "broker.example.org", 8883, coordinator.public_key.hex(), "ab" * 32, "cd" * 32,
        1000, 2000, _TOKEN.hex(), _PEM, _PEM,
    )  # fmt: skip


def _text() -> bytes:
    return invitation_text(sign_invitation(_invitation(), key("aggregator"))).encode()


def _take_invitation(data: bytes) -> None:
    """The first byte says whether the text is signed again, where its fields make an invitation."""
    text = data[1:].decode("utf-8", "replace")
    if data[:1] != _RAW:
        text = _signed_again(text)
    found = read_invitation(text, "invitation")
    require_open(found, "invitation", _NOW)
    assert len(found.number) == 16


def _signed_again(text: str) -> str:
    try:
        values = tomllib.loads(text)
        signed = sign_invitation(msgspec.convert(values, Invitation), key("aggregator"))
    except (ValueError, TypeError, OverflowError, msgspec.MsgspecError, RecursionError):
        return text
    return _SIGNATURE.sub(f'signature = "{signed.signature}"', text)


@cache
def _request_body() -> bytes:
    asked = requests.Request(
        _FEDERATION, _SITE, invitation_number(_TOKEN), key("site").public_key, b"csr", 400, "0.2", _NOW
    )
    return msgspec.msgpack.encode(asked)


def _take_request(data: bytes) -> None:
    encoded = data[1:]
    if data[:1] != _RAW:
        content = requests.MARK + encoded
        proven = content + proof_of(_TOKEN, content)
        encoded = proven + key("site").sign(b"fedmedclip request\0" + proven)
    received = requests.open_request(encoded)
    assert isinstance(received.holds(_TOKEN), bool)
    assert len(received.number) == 16


@cache
def _roster() -> chain.Roster:
    coordinator, site = key("aggregator"), key("site")
    roster = chain.found(_FEDERATION, bytes(32), coordinator, 1000)
    entries: list[Entry] = [
        Admitted(_SITE, site.public_key, bytes(32), 5000, 400, "Ada"),
        Renewed(_SITE, b"\1" * 32, 9000),
        WeightLimited(_SITE, 50),
        Revoked(_SITE, "left"),
        Admitted(_SITE, site.public_key, bytes(32), 5000, 400, "Ada"),
    ]
    for at, entry in enumerate(entries, 1001):
        roster = roster.with_entry(entry, coordinator, at)
    return roster.with_entry(KeyRotated(site.public_key), coordinator, 2000, site)


def _take_roster(data: bytes) -> None:
    """Sections: the bodies of records, each signed and linked again unless the byte before says that not."""
    encoded = _chained(split(data))
    for known in (None, _roster()):
        roster = chain.open_roster(encoded, known)
        assert chain.open_roster(roster.encoded).digest == roster.digest
        assert roster.members is not None


def _chained(sections: list[Section]) -> bytes:
    coordinator, site = key("aggregator"), key("site")
    records, before, signers = [], bytes(32), [coordinator]
    for number, (kind, body) in enumerate(sections):
        if kind < _FORGED:
            body = _linked(body, number, before)
        both = kind & 1
        signed = signers[-1:] + ([site] if both else [])
        signatures = b"".join(one.sign(b"fedmedclip roster\0" + body) for one in signed)
        if both:
            signers.append(site)
        records.append([body, signatures])
        before = hashlib.sha256(body + signatures).digest()
    return chain.MAGIC + msgspec.msgpack.encode(records)


def _linked(body: bytes, number: int, before: bytes) -> bytes:
    try:
        values = msgspec.msgpack.decode(body)
        values[0], values[1] = number, before
        return msgspec.msgpack.encode(values)
    except (ValueError, TypeError, IndexError, RecursionError, OverflowError, msgspec.MsgspecError):
        return body


def _take_roster_bytes(data: bytes) -> None:
    chain.open_roster(data)


def _roster_seeds() -> list[bytes]:
    sections = [(int(isinstance(record.entry, KeyRotated)), record.body) for record in _roster().records]
    return [join(sections), join(sections[:2]), join([(_FORGED | kind, body) for kind, body in sections])]


def _answer(accepted: bool, roster: bytes) -> bytes:
    reason = "" if accepted else "no"
    return msgspec.msgpack.encode(
        answers.Answer(_FEDERATION, _SITE, _DIGEST, accepted, reason, b"certificate" * accepted, roster)
    )


def _take_answer(data: bytes) -> None:
    encoded = data[1:]
    if data[:1] != _RAW:
        signer = key("site" if data[:1] < b"\x80" else "aggregator")
        content = answers.MARK + encoded
        encoded = content + signer.sign(b"fedmedclip answer\0" + content)
    answer, _ = answers.open_answer(encoded, key("aggregator").public_key, _DIGEST)
    assert answer.request == _DIGEST


def _answer_seeds() -> list[bytes]:
    rotated, first = _roster().encoded, chain.Roster(_roster().records[:2]).encoded
    bodies = [
        (b"\0", _answer(True, rotated)),
        (b"\xfe", _answer(True, first)),
        (b"\xfe", _answer(False, b"")),
    ]
    content = answers.MARK + bodies[0][1]
    whole = content + key("site").sign(b"fedmedclip answer\0" + content)
    return [*(choice + body for choice, body in bodies), _RAW + whole]


def _raw_request() -> bytes:
    content = requests.MARK + _request_body()
    proven = content + proof_of(_TOKEN, content)
    return _RAW + proven + key("site").sign(b"fedmedclip request\0" + proven)


TARGETS = (
    Target(
        "invitation",
        always(_take_invitation),
        (InvalidInputError,),
        lambda: [b"\0" + _text(), _RAW + _text()],
        after(1, mutated_text),
        weight=0.8,
    ),
    Target(
        "request",
        always(_take_request),
        (MessageError,),
        lambda: [b"\0" + _request_body(), _raw_request()],
        after(1, mutated_msgpack),
        weight=6,
    ),
    Target(
        "answer", always(_take_answer), (MessageError,), _answer_seeds, after(1, mutated_msgpack), weight=3
    ),
    Target(
        "roster",
        always(_take_roster),
        (MessageError,),
        _roster_seeds,
        by_section(mutated_msgpack, kinds=256),
        weight=0.4,
    ),
    Target(
        "roster-bytes",
        always(_take_roster_bytes),
        (MessageError,),
        lambda: [_roster().encoded, chain.Roster(_roster().records[:1]).encoded],
        lambda *three: (mutated_bytes if three[2].random() < 0.5 else after(4, mutated_msgpack))(*three),
        weight=5,
    ),
)
