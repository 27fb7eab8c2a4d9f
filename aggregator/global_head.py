"""The global head: its newest version, how a round makes the next, how a site that is behind catches up."""

from contextlib import suppress

import msgspec
import numpy as np
import numpy.typing as npt

from fedmedclip.aggregator.aggregation import Weighing, aggregate_stored, newest_remarks
from fedmedclip.aggregator.rules.names import DEFAULT, NamedRule, rule_named
from fedmedclip.aggregator.rules.rule import Remark
from fedmedclip.aggregator.store import Store, StoredAggregation, StoredHead, StoredVersion
from fedmedclip.aggregator.stored_heads import head_at
from fedmedclip.protocol.codecs import codec_named, decode_head, delta_codec_named, encode_head
from fedmedclip.protocol.codecs.error_feedback import apply_delta, compress
from fedmedclip.protocol.codecs.residual_watch import ResidualWatch
from fedmedclip.protocol.errors import (
    AggregationError,
    HeadError,
    InvalidInputError,
    MessageError,
    StorageError,
)
from fedmedclip.protocol.heads.head import HeadSpecification, NamedArrays, head_digest
from fedmedclip.protocol.messages import Announcement, Block, ObjectReference, Snapshot
from fedmedclip.protocol.objects import blocks_of, refer_to

_BY_DEFAULT = Weighing()


class GlobalHead:
    """Applies to its own state exactly the bytes that it broadcasts, so that every site holds the same bits.

    `rounds` is the version at which the run is finished; messages carry at most `maximum_message_bytes`. A
    version without payload (one that was taken back, or rolled back to) is read as a snapshot. `rule` makes
    one delta of a round's updates, and may be replaced between rounds. `drawn_below` says who trains from the
    newest version, as in an Announcement.
    """

    def __init__(
        self,
        store: Store,
        specification: HeadSpecification,
        downlink_codec: str,
        rounds: int,
        maximum_message_bytes: int,
        rule: NamedRule | None = None,
    ) -> None:
        self._store = store
        self.specification = specification
        self._codec = delta_codec_named(downlink_codec)
        self.rule = rule or rule_named(DEFAULT)
        self.rounds = rounds
        self.drawn_below: int | None = None
        self.start_directions: npt.NDArray[np.float32] | None = None
        """What the directions of a symmetric matrix begin with, in rows (k, D): see `Shared`."""
        self._maximum_message_bytes = maximum_message_bytes
        self._newest = store.newest_version()
        self._snapshot: tuple[int, bytes] | None = None
        self._residuals = ResidualWatch("broadcast")
        self.mend()

    @property
    def maximum_message_bytes(self) -> int:
        """What a message carries at most on this connection."""
        return self._maximum_message_bytes

    def limit_messages(self, maximum_message_bytes: int) -> None:
        """Cut heads into blocks by what this connection's broker takes."""
        self._maximum_message_bytes = maximum_message_bytes

    @property
    def version(self) -> int:
        """The newest version."""
        return self._newest.version

    @property
    def finished(self) -> bool:
        """Whether the last round is done."""
        return self.version >= self.rounds

    @property
    def digest(self) -> bytes:
        """SHA-256 of the newest version."""
        return self._newest.head_digest

    def remarks(self) -> tuple[int, tuple[Remark, ...]]:
        """Return the round that made the newest version, and whom its rule rejected or clipped; (0, ()) where
        no round made it here.
        """
        return newest_remarks(self._store)

    def aggregate(self, round_number: int, weighing: Weighing = _BY_DEFAULT) -> None:
        """Make version `round_number` from the updates that are stored, and store it with its broadcast.

        Raises AggregationError where what is configured makes no head of them; then nothing is changed.
        """
        delta, by = aggregate_stored(self._store, self.rule, self.specification, round_number, weighing)
        self.apply(round_number, delta, by)

    def apply(
        self,
        round_number: int,
        delta: NamedArrays,
        by: StoredAggregation,
        contributors: tuple[str, ...] = (),
    ) -> None:
        """Make version `round_number` of a change, and store it with its broadcast.

        The round is recorded as the last one of `contributors`, whose updates are not stored. Raises
        AggregationError where the change makes no head; then nothing is changed.
        """
        stored = self._store.head()
        residual = None if stored.residual is None else self.specification.from_bytes(stored.residual)
        compressed = compress(self._codec, delta, residual, stored.codec_memory, self.specification)
        self._residuals.note(round_number, compressed)
        before = self.specification.from_bytes(stored.head)
        head = apply_delta(before, compressed.decoded, self.specification)
        try:
            self.specification.check(head)
        except HeadError as error:
            raise AggregationError(
                f"version {round_number} would be no head: {error}; lower maximum_update_norm, and go back: "
                "fedmedclip control rollback"
            ) from error
        made = StoredVersion(round_number, head_digest(head), compressed.encoded)
        self._store.advance(
            made,
            StoredHead(
                self.specification.to_bytes(head),
                self.specification.to_bytes(compressed.residual),
                compressed.memory,
            ),
            by,
            contributors,
        )
        self._newest = made

    def head(self) -> NamedArrays:
        """Return the newest version's arrays."""
        return self.specification.from_bytes(self._store.head().head)

    def inline_delta(self) -> NamedArrays | None:
        """Return the difference by which the newest version came, where its announcement carries it."""
        payload = self._newest.payload
        if not payload or not isinstance(refer_to(payload, self._maximum_message_bytes), bytes):
            return None
        return decode_head(payload, self.specification)

    def adopt(self, version: int, head: NamedArrays) -> None:
        """Go on from a version that was made before and lost here.

        What the broadcast still owed is lost, and what the rule kept: it is of other rounds.
        """
        made = StoredVersion(version, head_digest(head), b"")
        encoded = self.specification.to_bytes(head)
        self._store.advance(made, StoredHead(encoded, None, b""))
        self._store.keep_whole(version, encoded)
        self._newest = made

    def roll_back(self, to_version: int, past: int) -> int:
        """Make a new version, above all that were made and above `past`, whose head is that of `to_version`.

        Raises InvalidInputError when that head is not to be had any more.
        """
        head = head_at(self._store, self.specification, to_version)
        version = max(self.version, past) + 1
        self.adopt(version, head)
        return version

    def keep_at_most(self, delta_bytes: int, best: int | None = None) -> None:
        """Drop the oldest deltas where all take more than `delta_bytes`; about half of that stays.

        The head of the `best` version stays, too.
        """
        if self._store.delta_bytes() <= delta_bytes:
            return
        total, oldest = 0, self.version
        for stored in reversed(self._store.versions_after(-1)):
            total += len(stored.payload)
            if total > delta_bytes // 2:
                break
            oldest = stored.version
        try:
            self._keep_whole(oldest)
        except InvalidInputError:
            oldest = self.version
            self._store.keep_whole(oldest, self._store.head().head)
        if best is not None and best < oldest:
            # One that cannot be made again is lost, as it would be without this.
            with suppress(InvalidInputError):
                self._keep_whole(best)
        self._store.forget_before(oldest, best)

    def _keep_whole(self, version: int) -> None:
        head = head_at(self._store, self.specification, version)
        self._store.keep_whole(version, self.specification.to_bytes(head))

    def mend(self) -> None:
        """Make a damaged head again from the deltas that led to it, which have digests of their own.

        Raises StorageError when these are damaged too.
        """
        try:
            self._store.head()
        except StorageError as error:
            try:
                head = head_at(self._store, self.specification, self.version)
            except InvalidInputError:
                raise error from None
            self._store.advance(self._newest, StoredHead(self.specification.to_bytes(head), None, b""))

    def announcement(self) -> Announcement:
        """Return the announcement of the newest version."""
        return self._announce(self._newest)

    def _announce(self, stored: StoredVersion) -> Announcement:
        payload = refer_to(stored.payload, self._maximum_message_bytes) if stored.payload else None
        return Announcement(
            stored.version,
            stored.head_digest,
            stored.version >= self.rounds,
            payload,
            # Of an earlier version nobody trains any more.
            self.drawn_below if stored.version == self.version else 0,
        )

    def call(self) -> Announcement:
        """Return the newest version's announcement without its payload: for who has it and is drawn now."""
        return msgspec.structs.replace(self.announcement(), payload=None)

    def catch_up(self, have_version: int) -> list[Announcement | Snapshot]:
        """Return what leads from `have_version` to the newest: every delta between, or a snapshot if smaller.

        A site that holds an unknown version (-1, or one that was never made) gets a snapshot.
        """
        if have_version == self.version:
            return [self.announcement()]
        if 0 <= have_version < self.version:
            behind = self._store.versions_after(have_version)
            whole = len(behind) == self.version - have_version and all(stored.payload for stored in behind)
            if whole and sum(len(stored.payload) for stored in behind) <= len(self._snapshot_bytes()):
                return [self._announce(stored) for stored in behind]
        reference = refer_to(self._snapshot_bytes(), self._maximum_message_bytes)
        return [Snapshot(self.version, self.digest, self.finished, reference, self.drawn_below)]

    def blocks(self, object_digest: bytes, indices: list[int] | None = None) -> list[Block]:
        """Return blocks (all, or the given ones) of an announced delta or of the newest snapshot.

        Raises MessageError when the digest is of neither.
        """
        data = self._store.payload_with_digest(object_digest)
        if data is None:
            data = self._snapshot_bytes()
        reference = refer_to(data, self._maximum_message_bytes)
        if isinstance(reference, bytes) or reference.digest != object_digest:
            raise MessageError(f"no object has the digest {object_digest.hex()[:16]}")
        return list(blocks_of(data, reference, indices))

    def blocks_behind(self, carrier: Announcement | Snapshot) -> list[Block]:
        """Return the blocks that an announcement or snapshot refers to; none when it carries its data."""
        payload = carrier.payload
        return self.blocks(payload.digest) if isinstance(payload, ObjectReference) else []

    def _snapshot_bytes(self) -> bytes:
        if self._snapshot is None or self._snapshot[0] != self.version:
            head = self.specification.from_bytes(self._store.head().head)
            encoded = encode_head(codec_named("lossless"), head, self.specification)
            self._snapshot = (self.version, encoded.data)
        return self._snapshot[1]
