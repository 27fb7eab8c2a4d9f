"""Recording what comes: each message that is acted on, and of the rest no more than a disk bears.

Whoever can write to a site's topics at the broker could else fill its disk. What the aggregator has signed
is recorded before it is acted on, and no faster than it can be of use; what is refused or ignored has an
entry as long as it is rare, and is counted in one entry every few minutes when it is not. What is kept until
it can be used has an entry when it comes and one when it is acted on.
"""

import hashlib
from dataclasses import dataclass, field

from fedmedclip.edge_client.ledger.entry import Draft
from fedmedclip.edge_client.ledger.message_ledger import MessageLedger
from fedmedclip.edge_client.ledger.notes import UNREADABLE, kind_of, note_of_received, opened
from fedmedclip.protocol.allowance import Allowance
from fedmedclip.protocol.errors import MessageError
from fedmedclip.protocol.messages import Block, Message

DROPPED = "Dropped"
"""The kind of an entry that counts messages that were not acted on."""

SUMMARY_SECONDS = 300.0
_REFUSED_AT_ONCE, _SECONDS_PER_REFUSED = 100.0, 60.0
# How far behind the ledger its database may be while messages come without a pause.
_KEEP_SECONDS = 1.0
# Of each kind: many more than a run of one round in a second needs for days.
_TAKEN_AT_ONCE, _SECONDS_PER_TAKEN = 20_000.0, 0.5


@dataclass
class _Dropped:
    """Messages that have no entry of their own yet; `digest` goes over their digests in order."""

    since: float
    messages: int = 0
    bytes: int = 0
    digest: "hashlib._Hash" = field(default_factory=hashlib.sha256)


class Incoming:
    """Records messages that come, in the order `take` (by the agent, of what it acts on), `came`."""

    def __init__(self, ledger: MessageLedger) -> None:
        self._ledger = ledger
        self._refused: Allowance | None = None
        self._rations: dict[str, Allowance] = {}
        self._dropped: _Dropped | None = None
        self._taken: set[bytes] = set()
        self._kept_at = 0.0

    def take(self, topic: str, payload: bytes, message: Message, now: float) -> None:
        """Record a message before it is acted on. Raises MessageError where too many of its kind come."""
        kind = kind_of(message)
        ration = self._rations.setdefault(kind, Allowance(_TAKEN_AT_ONCE, _SECONDS_PER_TAKEN, now))
        # Blocks are acted on only where they are asked for.
        if not isinstance(message, Block) and not ration.take(now):
            raise MessageError(f"more messages {kind} than a site takes in")
        self._ledger.record("in", topic, payload, kind, note_of_received(message))
        self._taken.add(payload)

    def came(self, topic: str, payload: bytes, now: float) -> None:
        """Record a message that the agent has seen, before it is acknowledged, if `take` has not."""
        taken, self._taken = self._taken, set()
        if payload not in taken:
            self._pass_over(topic, payload, now)
        self.sum_up(now)
        if now - self._kept_at >= _KEEP_SECONDS:
            self._ledger.keep_end()
            self._kept_at = now

    def sum_up(self, now: float, *, at_once: bool = False) -> None:
        """Record how many messages were dropped without an entry, once that is due."""
        dropped = self._dropped
        if dropped is None or (not at_once and now - dropped.since < SUMMARY_SECONDS):
            return
        self._dropped = None
        words = f"{dropped.messages} messages that were not acted on; the digest is of their digests in order"
        self._ledger.record_all([Draft("in", "", DROPPED, dropped.bytes, dropped.digest.hexdigest(), words)])

    def _pass_over(self, topic: str, payload: bytes, now: float) -> None:
        if self._refused is None:
            self._refused = Allowance(_REFUSED_AT_ONCE, _SECONDS_PER_REFUSED, now)
        if self._dropped is None and self._refused.take(now):
            message = opened(topic, payload)
            kind = UNREADABLE if message is None else kind_of(message)
            self._ledger.record("in", topic, payload, kind, "not acted on when it came")
            return
        if self._dropped is None:
            self._dropped = _Dropped(now)
        self._dropped.messages += 1
        self._dropped.bytes += len(payload)
        self._dropped.digest.update(hashlib.sha256(payload).digest())
