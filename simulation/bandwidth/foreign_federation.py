"""A federation whose payloads are not ours: the papers' whole heads, or another library's deltas.

No site or aggregator of ours works like this, so the messages are made here; they are the same ones in the
same envelopes, with a foreign payload in Update and Announcement. Local training is the same.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol

from fedmedclip.aggregator.rules import weighted_mean
from fedmedclip.edge_client.heads.heads import initial_private_head
from fedmedclip.protocol import topics
from fedmedclip.protocol.codecs import codec_named, decode_head, encode_head
from fedmedclip.protocol.envelope import NO_IDENTITY, seal
from fedmedclip.protocol.heads.head import HeadSpecification, NamedArrays, head_digest
from fedmedclip.protocol.heads.shared_heads import initial_shared_head, shared_head_specification
from fedmedclip.protocol.link.settings import SMALLEST_COMMON_LIMIT
from fedmedclip.protocol.messages import (
    Announcement,
    Block,
    Join,
    JoinAnswer,
    Message,
    Plan,
    Receipt,
    Status,
    Update,
)
from fedmedclip.protocol.objects import blocks_of, refer_to
from fedmedclip.protocol.signature import fingerprint
from fedmedclip.simulation.bandwidth.federation import FEDERATION, FederationPlan, derived_key, wire_plan
from fedmedclip.simulation.bandwidth.learner import CodecMeasurements, private_specification, train
from fedmedclip.simulation.federation.feature_pool import FeaturePool
from fedmedclip.simulation.federation.traffic import Traffic
from fedmedclip.simulation.federation.virtual_sites import VirtualSite

AGGREGATOR = ""
"""Stands for the aggregator where a sender is named: no site can be called that."""


class Coder(Protocol):
    """Turns heads into payloads and back; `base` is the head that both ends hold already."""

    measurements: CodecMeasurements

    def encode(self, sender: str, head: NamedArrays, base: NamedArrays, measured: bool) -> bytes:
        """Return the payload by which `sender` makes `head` known; `measured`: record what it took."""

    def decode(self, payload: bytes, base: NamedArrays) -> NamedArrays:
        """Return the head that a receiver of the payload holds."""


class WholeHeadCoder:
    """Whole heads, compressed by a codec, without deltas and without error feedback, as in the papers."""

    def __init__(self, uplink: str, downlink: str, specification: HeadSpecification) -> None:
        self._uplink, self._downlink = codec_named(uplink), codec_named(downlink)
        self._specification = specification
        self.measurements = CodecMeasurements()

    def encode(self, sender: str, head: NamedArrays, base: NamedArrays, measured: bool) -> bytes:
        """See `Coder`; the base is not used."""
        codec = self._downlink if sender == AGGREGATOR else self._uplink
        if measured:
            self.measurements.take(codec, head, b"", self._specification)
        return encode_head(codec, head, self._specification).data

    def decode(self, payload: bytes, base: NamedArrays) -> NamedArrays:
        """See `Coder`."""
        return decode_head(payload, self._specification)


class ForeignFederation:
    """Plays the same rounds as `Federation`; private heads rest as files in `folder`."""

    def __init__(self, plan: FederationPlan, pool: FeaturePool, folder: Path, coder: Coder) -> None:
        self._plan = plan
        self._pool = pool
        self._folder = folder
        self._coder = coder
        self._specification = shared_head_specification(
            plan.method, pool.embedding_size, len(pool.class_embeddings)
        )
        self._key = derived_key(plan.seed, "aggregator")
        self._announced = wire_plan(plan, pool, self._key)
        self._online: set[str] = set()
        self._encoded: bytes | None = None
        self._version = 0
        self.head: NamedArrays = initial_shared_head(
            plan.method, pool.embedding_size, plan.seed, len(pool.class_embeddings)
        )

    @property
    def measurements(self) -> CodecMeasurements:
        """What the coder recorded."""
        return self._coder.measurements

    def play_round(self, round_number: int, participants: Iterable[VirtualSite]) -> Traffic:
        """Let the participants make version `round_number`; return what travelled."""
        traffic = Traffic()
        sites = list(participants)
        names = {site.name for site in sites}
        for name in sorted(self._online - names):
            self._send_status(name, False, traffic)
        for site in sites:
            if site.name not in self._online:
                self._join(site, traffic)
        self._online = names
        # One update at a time: heads of many sites would fill the memory.
        mean = weighted_mean(
            (self._update(site, round_number, site is sites[0], traffic) for site in sites),
            self._specification,
        )
        self._encoded = self._coder.encode(AGGREGATOR, mean, self.head, False)
        self.head = self._coder.decode(self._encoded, self.head)
        self._version = round_number
        for site in sites:
            self._receive_head(site.name, traffic)
            self._send_status(site.name, True, traffic)
        return traffic

    def close(self) -> None:
        """Nothing is held open."""

    def _update(
        self, site: VirtualSite, round_number: int, measured: bool, traffic: Traffic
    ) -> tuple[float, NamedArrays]:
        plan = self._plan
        private = self._private(site)
        shared, private = train(
            site, self._pool, plan.settings, plan.method, plan.seed, self.head, private, round_number
        )
        self._private_file(site).write_bytes(private_specification(plan.method, self._pool).to_bytes(private))
        encoded = self._coder.encode(site.name, shared, self.head, measured)
        reference = refer_to(encoded, SMALLEST_COMMON_LIMIT)
        self._send(site.name, Update(round_number, len(site.train), reference), traffic)
        for block in blocks_of(encoded, reference):
            self._send(site.name, block, traffic)
        self._receive(site.name, Receipt(round_number, True, ""), traffic)
        return float(len(site.train)), self._coder.decode(encoded, self.head)

    def _private_file(self, site: VirtualSite) -> Path:
        return self._folder / f"{site.name}.private"

    def _private(self, site: VirtualSite) -> NamedArrays:
        plan, pool = self._plan, self._pool
        if (file := self._private_file(site)).exists():
            return private_specification(plan.method, pool).from_bytes(file.read_bytes())
        classes = len(pool.class_embeddings)
        return initial_private_head(plan.method, pool.embedding_size, classes, plan.seed, site.name)

    def _join(self, site: VirtualSite, traffic: Traffic) -> None:
        plan, pool = self._plan, self._pool
        key = derived_key(plan.seed, site.name).public_key
        self._receive(site.name, self._announced, traffic)
        self._receive_head(site.name, traffic)
        self._send(site.name, Join(key, pool.digest, len(site.train)), traffic)
        self._receive(site.name, JoinAnswer(fingerprint(key), True, ""), traffic)
        self._send_status(site.name, True, traffic)

    def _receive_head(self, name: str, traffic: Traffic) -> None:
        for message in self._announcement():
            self._receive(name, message, traffic)

    def _announcement(self) -> Iterator[Announcement | Block]:
        finished = self._version >= self._plan.rounds
        if self._encoded is None:
            yield Announcement(self._version, head_digest(self.head), finished, None)
            return
        reference = refer_to(self._encoded, SMALLEST_COMMON_LIMIT)
        yield Announcement(self._version, head_digest(self.head), finished, reference)
        yield from blocks_of(self._encoded, reference)

    def _send(self, name: str, message: Message, traffic: Traffic) -> None:
        topic = topics.up(FEDERATION, name)
        key = derived_key(self._plan.seed, name)
        traffic.sent(topic, seal(message, topic, key, self._announced.identity))

    def _send_status(self, name: str, online: bool, traffic: Traffic) -> None:
        key = derived_key(self._plan.seed, name)
        topic = topics.status(FEDERATION, name)
        status = Status(fingerprint(key.public_key), online, self._version)
        traffic.sent(topic, seal(status, topic, key, NO_IDENTITY))

    def _receive(self, name: str, message: Message, traffic: Traffic) -> None:
        match message:
            case Plan():
                topic = topics.plan(FEDERATION)
            case Announcement():
                topic = topics.head(FEDERATION)
            case Block():
                topic = topics.blocks(FEDERATION)
            case _:
                topic = topics.down(FEDERATION, name)
        traffic.received(topic, seal(message, topic, self._key, self._announced.identity))
