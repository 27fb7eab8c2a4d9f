"""The global head: its newest version, how a round makes the next, how a site that is behind catches up."""

from fedmedclip.aggregator.rules import rule_named
from fedmedclip.aggregator.store import Store, StoredHead, StoredVersion
from fedmedclip.protocol.codecs import codec_named, decode_head, delta_codec_named, encode_head
from fedmedclip.protocol.codecs.error_feedback import apply_delta, compress
from fedmedclip.protocol.codecs.residual_watch import ResidualWatch
from fedmedclip.protocol.errors import MessageError
from fedmedclip.protocol.heads.head import HeadSpecification, head_digest
from fedmedclip.protocol.messages import Announcement, Block, ObjectReference, Snapshot
from fedmedclip.protocol.objects import blocks_of, refer_to


class GlobalHead:
    """Applies to its own state exactly the bytes that it broadcasts, so that every site holds the same bits.

    `rounds` is the version at which the federation is finished; messages carry at most
    `maximum_message_bytes`; `rule` names the aggregation rule.
    """

    def __init__(
        self,
        store: Store,
        specification: HeadSpecification,
        downlink_codec: str,
        rounds: int,
        maximum_message_bytes: int,
        rule: str = "weighted_mean",
    ) -> None:
        self._store = store
        self.specification = specification
        self._codec = delta_codec_named(downlink_codec)
        self._rule = rule_named(rule)
        self._rounds = rounds
        self._maximum_message_bytes = maximum_message_bytes
        self._newest = store.newest_version()
        self._snapshot: tuple[int, bytes] | None = None
        self._residuals = ResidualWatch("broadcast")

    @property
    def version(self) -> int:
        """The newest version."""
        return self._newest.version

    @property
    def finished(self) -> bool:
        """Whether the last round is done."""
        return self.version >= self._rounds

    @property
    def digest(self) -> bytes:
        """SHA-256 of the newest version."""
        return self._newest.head_digest

    def aggregate(self, round_number: int, sites: tuple[str, ...], weighting: str) -> None:
        """Make version `round_number` from the stored updates of `sites`, and store it with its broadcast."""
        updates = (
            (
                float(update.samples) if weighting == "samples" else 1.0,
                decode_head(update.payload, self.specification),
            )
            for update in self._store.updates(round_number, sites)
        )
        delta = self._rule(updates, self.specification)
        stored = self._store.head()
        residual = None if stored.residual is None else self.specification.from_bytes(stored.residual)
        compressed = compress(self._codec, delta, residual, stored.codec_memory, self.specification)
        self._residuals.note(round_number, compressed)
        before = self.specification.from_bytes(stored.head)
        head = apply_delta(before, compressed.decoded, self.specification)
        self.specification.check(head)
        made = StoredVersion(round_number, head_digest(head), compressed.encoded)
        self._store.advance(
            made,
            StoredHead(
                self.specification.to_bytes(head),
                self.specification.to_bytes(compressed.residual),
                compressed.memory,
            ),
        )
        self._newest = made

    def announcement(self) -> Announcement:
        """Return the announcement of the newest version."""
        return self._announce(self._newest)

    def _announce(self, stored: StoredVersion) -> Announcement:
        payload = refer_to(stored.payload, self._maximum_message_bytes) if stored.version else None
        return Announcement(stored.version, stored.head_digest, stored.version >= self._rounds, payload)

    def catch_up(self, have_version: int) -> list[Announcement | Snapshot]:
        """Return what leads from `have_version` to the newest: every delta between, or a snapshot if smaller.

        A site that holds an unknown version (-1, or one that was never made) gets a snapshot.
        """
        if have_version == self.version:
            return [self.announcement()]
        if 0 <= have_version < self.version:
            behind = self._store.versions_after(have_version)
            if sum(len(stored.payload) for stored in behind) <= len(self._snapshot_bytes()):
                return [self._announce(stored) for stored in behind]
        reference = refer_to(self._snapshot_bytes(), self._maximum_message_bytes)
        return [Snapshot(self.version, self.digest, self.finished, reference)]

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
