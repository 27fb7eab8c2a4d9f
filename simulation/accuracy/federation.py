"""A federation in memory: production training, codecs, error feedback and messages, without agents and files.

Heads have the same bits, and messages the same bytes, as those of the production agents and coordinator (a
test compares them). No site is ever late or offline here, so there is nothing for those to decide.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from aggregator.rules import weighted_mean
from edge_client.heads import initial_private_head
from protocol import topics
from protocol.codecs import delta_codec_named
from protocol.envelope import seal
from protocol.error_feedback import Compressed, apply_delta, compress, difference
from protocol.head import NamedArrays, head_digest
from protocol.link_settings import SMALLEST_COMMON_LIMIT
from protocol.messages import (
    Announcement,
    Join,
    JoinAnswer,
    Message,
    Receipt,
    Status,
    Update,
)
from protocol.objects import blocks_of, refer_to
from protocol.shared_heads import initial_shared_head, shared_head_specification
from protocol.signature import fingerprint
from simulation.bandwidth.feature_pool import FeaturePool
from simulation.bandwidth.federation import FEDERATION, FederationPlan, derived_key, wire_plan
from simulation.bandwidth.learner import train
from simulation.bandwidth.traffic import Traffic
from simulation.virtual_sites import VirtualSite

ALWAYS_KEPT = -10.0
"""A threshold that no row of a masked layer falls below, so far away that its step's gradient is 0."""


@dataclass
class _Site:
    """A site, its private head, and what its last update left out."""

    images: VirtualSite
    private: NamedArrays
    left_over: Compressed | None = None


class MemoryFederation:
    """All sites take part in every round; call `play_round` with 1, 2, ... in turn.

    `traffic` is what travelled since it was last taken: first of all, what joining takes.
    """

    def __init__(
        self, plan: FederationPlan, pool: FeaturePool, sites: Sequence[VirtualSite], masked: bool = True
    ) -> None:
        self._plan = plan
        self._pool = pool
        self._key = derived_key(plan.seed, "aggregator")
        self._specification = shared_head_specification(plan.method, pool.embedding_size)
        self._left_over: Compressed | None = None
        self.head = initial_shared_head(plan.method, pool.embedding_size, plan.seed)
        self._sites = [
            _Site(
                site,
                initial_private_head(
                    plan.method, pool.embedding_size, len(pool.class_embeddings), plan.seed, site.name
                ),
            )
            for site in sorted(sites, key=lambda site: site.name)
        ]
        if not masked:
            self.head = _unmasked(self.head)
            for site in self._sites:
                site.private = _unmasked(site.private)
        self.traffic = Traffic()
        self._join()

    def private_head(self, site: str) -> NamedArrays:
        """Return a site's private head; empty for a method without one."""
        return next(found.private for found in self._sites if found.images.name == site)

    def take_traffic(self) -> Traffic:
        """Return what travelled since the last call."""
        traffic, self.traffic = self.traffic, Traffic()
        return traffic

    def play_round(self, number: int) -> None:
        """Train at every site, aggregate, and move everybody to version `number`."""
        updates = [(float(len(site.images.train)), self._train(site, number)) for site in self._sites]
        mean = weighted_mean(updates, self._specification)
        before = self._left_over
        made = compress(
            delta_codec_named(self._plan.downlink_codec),
            mean,
            before.residual if before else None,
            before.memory if before else b"",
            self._specification,
        )
        self._left_over = made
        self.head = apply_delta(self.head, made.decoded, self._specification)
        self._specification.check(self.head)
        self._announce(number, made.encoded)

    def _train(self, site: _Site, number: int) -> NamedArrays:
        """Return what the aggregator decodes of the site's update."""
        plan = self._plan
        shared, site.private = train(
            site.images, self._pool, plan.settings, plan.method, plan.seed, self.head, site.private, number
        )
        before = site.left_over
        made = compress(
            delta_codec_named(plan.uplink_codec),
            difference(shared, self.head),
            before.residual if before else None,
            before.memory if before else b"",
            self._specification,
        )
        site.left_over = made
        payload = refer_to(made.encoded, SMALLEST_COMMON_LIMIT)
        self._up(site, Update(number, len(site.images.train), payload))
        for block in blocks_of(made.encoded, payload):
            self._up(site, block)
        self._down(topics.down(FEDERATION, site.images.name), Receipt(number, True, ""))
        return made.decoded

    def _join(self) -> None:
        plan = wire_plan(self._plan, self._pool, self._key)
        opening = Announcement(0, head_digest(self.head), False, None)
        for site in self._sites:
            name = site.images.name
            public_key = derived_key(self._plan.seed, name).public_key
            self._down(topics.plan(FEDERATION), plan)
            self._down(topics.head(FEDERATION), opening)
            self._up(site, Join(public_key, self._pool.digest, len(site.images.train)))
            self._down(topics.down(FEDERATION, name), JoinAnswer(fingerprint(public_key), True, ""))
            self._report(site, 0)

    def _announce(self, version: int, encoded: bytes) -> None:
        payload = refer_to(encoded, SMALLEST_COMMON_LIMIT)
        finished = version >= self._plan.rounds
        announcement = Announcement(version, head_digest(self.head), finished, payload)
        for site in self._sites:
            self._down(topics.head(FEDERATION), announcement)
            for block in blocks_of(encoded, payload):
                self._down(topics.blocks(FEDERATION), block)
            self._report(site, version)

    def _report(self, site: _Site, version: int) -> None:
        key = derived_key(self._plan.seed, site.images.name)
        topic = topics.status(FEDERATION, site.images.name)
        self.traffic.sent(topic, seal(Status(fingerprint(key.public_key), True, version), topic, key))

    def _up(self, site: _Site, message: Message) -> None:
        topic = topics.up(FEDERATION, site.images.name)
        self.traffic.sent(topic, seal(message, topic, derived_key(self._plan.seed, site.images.name)))

    def _down(self, topic: str, message: Message) -> None:
        self.traffic.received(topic, seal(message, topic, self._key))


def _unmasked(head: NamedArrays) -> NamedArrays:
    return {
        name: np.full_like(array, ALWAYS_KEPT) if name.endswith(".threshold") else array
        for name, array in head.items()
    }
