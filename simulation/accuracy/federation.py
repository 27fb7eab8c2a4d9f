"""A federation in memory: production training, codecs, error feedback and messages, without agents and files.

Heads have the same bits, and messages the same bytes, as those of the production agents and coordinator (a
test compares them). No site is ever late or offline here, so there is nothing for those to decide.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from fedmedclip.aggregator.rules import weighted_mean
from fedmedclip.protocol import topics
from fedmedclip.protocol.codecs import delta_codec_named
from fedmedclip.protocol.codecs.error_feedback import Compressed, apply_delta, change_to_send, compress
from fedmedclip.protocol.envelope import NO_IDENTITY, seal
from fedmedclip.protocol.heads.head import NamedArrays, head_digest
from fedmedclip.protocol.heads.shared_heads import shared_head_specification
from fedmedclip.protocol.link.settings import SMALLEST_COMMON_LIMIT
from fedmedclip.protocol.messages import (
    Announcement,
    Join,
    JoinAnswer,
    Message,
    Receipt,
    Status,
    Update,
)
from fedmedclip.protocol.objects import blocks_of, refer_to
from fedmedclip.protocol.signature import fingerprint
from fedmedclip.simulation.accuracy.trainer import Trainer
from fedmedclip.simulation.bandwidth.federation import FEDERATION, FederationPlan, derived_key, wire_plan
from fedmedclip.simulation.federation.feature_pool import FeaturePool
from fedmedclip.simulation.federation.traffic import Traffic
from fedmedclip.simulation.federation.virtual_sites import VirtualSite


class Federation(Protocol):
    """What plays rounds and has heads. Call `play_round` with 1, 2, ... in turn."""

    def play_round(self, number: int) -> None:
        """Train at every site, and move on to version `number`."""

    def shared_head(self, site: str | None = None) -> NamedArrays | None:
        """Return the shared head that a site has, or one that did not take part (None); None: it has none."""

    def private_head(self, site: str) -> NamedArrays:
        """Return a site's private head; empty for a method without one."""

    def take_traffic(self) -> Traffic:
        """Return what travelled since the last call; at first, what joining takes."""


class NoTraining:
    """Zero-shot: no heads, no rounds, no bytes."""

    def play_round(self, number: int) -> None:
        """Do nothing."""

    def shared_head(self, site: str | None = None) -> NamedArrays | None:
        """Return an empty head."""
        return {}

    def private_head(self, site: str) -> NamedArrays:
        """Return an empty head."""
        return {}

    def take_traffic(self) -> Traffic:
        """Return that nothing travelled."""
        return Traffic()


class LocalTraining:
    """Every site for itself: a round's shared head is where its next round begins."""

    def __init__(self, trainer: Trainer, sites: Sequence[VirtualSite]) -> None:
        self._trainer = trainer
        self._sites = list(sites)
        self._shared = {site.name: trainer.initial_shared() for site in sites}
        self._private = {site.name: trainer.initial_private(site) for site in sites}

    def play_round(self, number: int) -> None:
        """Train at every site."""
        for site in self._sites:
            heads = self._shared[site.name], self._private[site.name]
            self._shared[site.name], self._private[site.name] = self._trainer.train(site, *heads, number)

    def shared_head(self, site: str | None = None) -> NamedArrays | None:
        """Return a site's own; there is none for others."""
        return None if site is None else self._shared[site]

    def private_head(self, site: str) -> NamedArrays:
        """Return a site's private head."""
        return self._private[site]

    def take_traffic(self) -> Traffic:
        """Return that nothing travelled."""
        return Traffic()


@dataclass
class _Site:
    """A site, its private head, and what its last update left out."""

    images: VirtualSite
    private: NamedArrays
    left_over: Compressed | None = None


class MemoryFederation:
    """All sites take part in every round."""

    def __init__(
        self, plan: FederationPlan, pool: FeaturePool, sites: Sequence[VirtualSite], trainer: Trainer
    ) -> None:
        self._plan = plan
        self._pool = pool
        self._trainer = trainer
        self._key = derived_key(plan.seed, "aggregator")
        self._announced = wire_plan(plan, pool, self._key)
        self._specification = shared_head_specification(
            plan.method, pool.embedding_size, len(pool.class_embeddings)
        )
        self._left_over: Compressed | None = None
        self.head = trainer.initial_shared()
        ordered = sorted(sites, key=lambda site: site.name)
        self._sites = [_Site(site, trainer.initial_private(site)) for site in ordered]
        self.traffic = Traffic()
        self._join()

    def shared_head(self, site: str | None = None) -> NamedArrays | None:
        """Return the global head, which everybody has."""
        return self.head

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
        shared, site.private = self._trainer.train(site.images, self.head, site.private, number)
        before = site.left_over
        residual = before.residual if before else None
        made = compress(
            delta_codec_named(plan.uplink_codec),
            change_to_send(plan.method, shared, self.head, residual),
            residual,
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
        opening = Announcement(0, head_digest(self.head), False, None)
        for site in self._sites:
            name = site.images.name
            public_key = derived_key(self._plan.seed, name).public_key
            self._down(topics.plan(FEDERATION), self._announced)
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
        status = Status(fingerprint(key.public_key), True, version)
        self.traffic.sent(topic, seal(status, topic, key, NO_IDENTITY))

    def _up(self, site: _Site, message: Message) -> None:
        topic = topics.up(FEDERATION, site.images.name)
        key = derived_key(self._plan.seed, site.images.name)
        self.traffic.sent(topic, seal(message, topic, key, self._announced.identity))

    def _down(self, topic: str, message: Message) -> None:
        self.traffic.received(topic, seal(message, topic, self._key, self._announced.identity))
