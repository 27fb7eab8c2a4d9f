"""A federation as in the papers: whole heads travel, compressed, without deltas and without error feedback.

No site or aggregator of ours works like this, so the messages are made here; they are the same ones in the
same envelopes, with a whole head as the payload of Update and Announcement. Local training is the same.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

from aggregator.rules import weighted_mean
from edge_client.heads import initial_private_head
from protocol import topics
from protocol.codecs import codec_named, decode_head, encode_head
from protocol.envelope import seal
from protocol.head import NamedArrays, head_digest
from protocol.link_settings import SMALLEST_COMMON_LIMIT
from protocol.messages import Announcement, Block, Join, JoinAnswer, Message, Receipt, Status, Update
from protocol.objects import blocks_of, refer_to
from protocol.shared_heads import initial_shared_head, shared_head_specification
from protocol.signature import fingerprint
from simulation.bandwidth.feature_pool import FeaturePool
from simulation.bandwidth.federation import FEDERATION, FederationPlan, derived_key, wire_plan
from simulation.bandwidth.learner import CodecMeasurements, private_specification, train
from simulation.bandwidth.traffic import Traffic
from simulation.virtual_sites import VirtualSite


class WholeHeadFederation:
    """Plays the same rounds as `Federation`; private heads rest as files in `folder`."""

    def __init__(self, plan: FederationPlan, pool: FeaturePool, folder: Path) -> None:
        self._plan = plan
        self._pool = pool
        self._folder = folder
        self._specification = shared_head_specification(plan.method, pool.embedding_size)
        self._uplink, self._downlink = codec_named(plan.uplink_codec), codec_named(plan.downlink_codec)
        self._key = derived_key(plan.seed, "aggregator")
        self._online: set[str] = set()
        self._encoded: bytes | None = None
        self._version = 0
        self.head: NamedArrays = initial_shared_head(plan.method, pool.embedding_size, plan.seed)
        self.measurements = CodecMeasurements()

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
        self.head = weighted_mean(
            (self._update(site, round_number, site is sites[0], traffic) for site in sites),
            self._specification,
        )
        self._encoded = encode_head(self._downlink, self.head, self._specification).data
        self.head = decode_head(self._encoded, self._specification)
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
        shared, private = train(
            site,
            self._pool,
            plan.settings,
            plan.method,
            plan.seed,
            self.head,
            self._private(site),
            round_number,
        )
        self._keep_private(site, private)
        if measured:
            self.measurements.take(self._uplink, shared, b"", self._specification)
        encoded = encode_head(self._uplink, shared, self._specification).data
        reference = refer_to(encoded, SMALLEST_COMMON_LIMIT)
        self._send(site.name, Update(round_number, len(site.train), reference), traffic)
        for block in blocks_of(encoded, reference):
            self._send(site.name, block, traffic)
        self._receive(site.name, Receipt(round_number, True, ""), traffic)
        return float(len(site.train)), decode_head(encoded, self._specification)

    def _private_file(self, site: VirtualSite) -> Path:
        return self._folder / f"{site.name}.private"

    def _private(self, site: VirtualSite) -> NamedArrays:
        plan, pool = self._plan, self._pool
        if (file := self._private_file(site)).exists():
            return private_specification(plan.method, pool).from_bytes(file.read_bytes())
        classes = len(pool.class_embeddings)
        return initial_private_head(plan.method, pool.embedding_size, classes, plan.seed, site.name)

    def _keep_private(self, site: VirtualSite, private: NamedArrays) -> None:
        specification = private_specification(self._plan.method, self._pool)
        self._private_file(site).write_bytes(specification.to_bytes(private))

    def _join(self, site: VirtualSite, traffic: Traffic) -> None:
        plan, pool = self._plan, self._pool
        key = derived_key(plan.seed, site.name).public_key
        self._receive(site.name, wire_plan(plan, pool, self._key), traffic)
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
        traffic.sent(topic, seal(message, topic, derived_key(self._plan.seed, name)))

    def _send_status(self, name: str, online: bool, traffic: Traffic) -> None:
        key = derived_key(self._plan.seed, name)
        topic = topics.status(FEDERATION, name)
        status = Status(fingerprint(key.public_key), online, self._version)
        traffic.sent(topic, seal(status, topic, key))

    def _receive(self, name: str, message: Message, traffic: Traffic) -> None:
        topic = topics.down(FEDERATION, name)
        traffic.received(topic, seal(message, topic, self._key))
