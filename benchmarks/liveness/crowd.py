"""Many light sites at one aggregator: what the benchmarks of its resources play.

The aggregator is a process of its own with its store, and the broker a Mosquitto. The sites share this
process and one connection, join with keys of their own and send, for each round, an update of a small random
change that was encoded once, signed each time.
"""

import itertools
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from fedmedclip.protocol import topics
from fedmedclip.protocol.codecs import delta_codec_named
from fedmedclip.protocol.codecs.error_feedback import compress
from fedmedclip.protocol.envelope import NO_IDENTITY, open_envelope, seal
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.heads.shared_heads import shared_head_specification
from fedmedclip.protocol.link.link import Link, LinkSettings, Received
from fedmedclip.protocol.messages import (
    Announcement,
    Join,
    JoinAnswer,
    Message,
    Moment,
    Plan,
    Status,
    Update,
)
from fedmedclip.protocol.signature import SigningKey, fingerprint, new_signing_key
from fedmedclip.simulation.processes.brokers import MosquittoBroker
from fedmedclip.simulation.processes.commands import running
from fedmedclip.simulation.processes.configurations import write_aggregator_configuration
from tests.edge_client.conftest import write_tiny_bundle

NAME = "crowd"
EMBEDDING_SIZE = 256
METHOD = "fedmedclip"
DEADLINE_SECONDS = 300.0

Expected = TypeVar("Expected", bound=Message)


class Crowd:
    """All the sites, with one connection. Raises InvalidInputError when an answer stays away."""

    def __init__(self, sites: int, broker: LinkSettings) -> None:
        self.keys: dict[str, SigningKey] = {f"site-{index:05}": new_signing_key() for index in range(sites)}
        self._session, self._sequence = int(time.time()), itertools.count(1)
        self.link = Link(broker, client_id="crowd")
        self.link.subscribe(topics.plan(NAME), topics.head(NAME), topics.down(NAME, "+"))
        self.link.start()
        specification = shared_head_specification(METHOD, EMBEDDING_SIZE)
        codec = delta_codec_named("lowrank")
        self._payloads = []
        for seed in range(8):
            draw = np.random.default_rng(seed)
            delta = {
                name: draw.normal(0, 1e-3, array.shape).astype(np.float32)
                for name, array in specification.initial(0).items()
            }
            self._payloads.append(compress(codec, delta, None, b"", specification).encoded)
        self.plan = self._wait_for(Plan)
        for site in self.keys:
            self.send(site, self.join_of(site))
        for _ in self.keys:
            if not self._wait_for(JoinAnswer).accepted:
                raise InvalidInputError("a site was not admitted")

    def join_of(self, site: str) -> Join:
        """Return the site's request to join."""
        return Join(self.keys[site].public_key, self.plan.bundle_digest, 100, 0, "", "", self._moment(), 1)

    def deliver(self, round_number: int) -> None:
        """Send every site's update, and wait until the version that it makes is announced."""
        for site in self.keys:
            self.send(site, self.update_of(site, round_number))
        while self._wait_for(Announcement).version < round_number:
            pass

    def update_of(self, site: str, round_number: int) -> Update:
        """Return the site's update for a round."""
        return Update(round_number, 100, self._payloads[int(site[-1]) % len(self._payloads)], 0)

    def send_status(self, site: str, version: int) -> None:
        """Publish, retained, that a site is there and holds a version."""
        topic, key = topics.status(NAME, site), self.keys[site]
        status = Status(fingerprint(key.public_key), True, version, self._moment())
        self.link.publish(topic, seal(status, topic, key, NO_IDENTITY), retain=True)

    def _moment(self) -> Moment:
        return Moment(self._session, 0, next(self._sequence))

    def send(self, site: str, message: Message) -> None:
        """Sign and publish a site's message."""
        topic = topics.up(NAME, site)
        self.link.publish(topic, seal(message, topic, self.keys[site], self.plan.identity))

    def _wait_for(self, kind: type[Expected]) -> Expected:
        until = time.monotonic() + DEADLINE_SECONDS
        while time.monotonic() < until:
            event = self.link.next_event(1.0)
            if isinstance(event, Received):
                event.acknowledge()
                message = open_envelope(event.payload, event.topic).message
                if isinstance(message, kind):
                    return message
        raise InvalidInputError(f"no {kind.__name__} within {DEADLINE_SECONDS:.0f} s")


@dataclass(frozen=True)
class CrowdedAggregator:
    """A running federation: its sites, the processes of aggregator and broker, and the aggregator's files."""

    crowd: Crowd
    aggregator: int
    broker: int
    state: Path


@contextmanager
def crowded_aggregator(
    folder: Path,
    sites: int,
    rounds: int,
    settings: Mapping[str, object] | None = None,
    *,
    page: bool = False,
) -> Iterator[CrowdedAggregator]:
    """Start broker and aggregator in `folder`, and let all sites join.

    `settings` are more of the configuration's table `[federation]`; with `page` it has its page.
    """
    bundle = write_tiny_bundle(folder / "bundle", embedding_size=EMBEDDING_SIZE).folder
    configuration = folder / "aggregator" / "aggregator.toml"
    with MosquittoBroker() as broker:
        link = LinkSettings(host=broker.host, port=broker.port)
        write_aggregator_configuration(
            configuration, federation=NAME, bundle=bundle, method=METHOD, rounds=rounds, sites=sites, seed=0,
            broker=link, settings=settings, page=page,
        )  # fmt: skip
        command = {"aggregator": ["aggregator", "--config", str(configuration)]}
        with running(command, folder / "logs") as (process,):
            crowd = Crowd(sites, link)
            try:
                yield CrowdedAggregator(
                    crowd, process.process.pid, broker.process_identifier, configuration.parent
                )
            finally:
                crowd.link.close()
