"""The aggregator as a process: state folder, MQTT link and coordinator, in one loop."""

import logging
import time
from pathlib import Path

from fedmedclip.aggregator.configuration import AggregatorConfiguration
from fedmedclip.aggregator.coordinator import Coordinator, Outgoing
from fedmedclip.aggregator.federation import begin_or_resume
from fedmedclip.aggregator.global_head import GlobalHead
from fedmedclip.aggregator.store import Store
from fedmedclip.protocol import topics
from fedmedclip.protocol.bundle.bundle import open_bundle
from fedmedclip.protocol.configuration import beside, read_configuration, require_paths
from fedmedclip.protocol.envelope import seal
from fedmedclip.protocol.errors import LinkError
from fedmedclip.protocol.link.link import (
    Connected,
    Disconnected,
    Link,
    PublishRefused,
    Received,
    SubscriptionRefused,
)
from fedmedclip.protocol.signature import SigningKey, load_or_create_signing_key
from fedmedclip.protocol.state_folder import claim_state_folder

log = logging.getLogger("fedmedclip.aggregator")

_TICK_SECONDS = 1.0
_SETTLING_SECONDS = 60.0


def run_aggregator(configuration_file: Path, *, once: bool) -> None:
    """Serve the federation of `configuration_file`; with `once`, return when it is over.

    Raises FedMedClipError for anything that the operator has to mend; KeyboardInterrupt ends it cleanly.
    """
    configuration = read_configuration(configuration_file, AggregatorConfiguration)
    require_paths(configuration_file, configuration)
    settings = configuration.federation
    bundle = open_bundle(beside(configuration_file, settings.bundle))
    state = beside(configuration_file, settings.state)
    broker = configuration.broker.relative_to(configuration_file.resolve().parent)
    with claim_state_folder(state):
        key = load_or_create_signing_key(state / "aggregator.key")
        store = Store(state / "aggregator.db")
        plan, specification = begin_or_resume(configuration, bundle, store, key.public_key)
        global_head = GlobalHead(
            store,
            specification,
            plan.downlink_codec,
            plan.rounds,
            broker.maximum_message_bytes,
            settings.rule,
        )
        coordinator = Coordinator(configuration, plan, store, global_head, time.monotonic())
        log.info(
            "federation %s at version %d of %d; aggregator key %s",
            settings.name,
            global_head.version,
            plan.rounds,
            key.public_key.hex(),
        )
        link = Link(broker, client_id=f"fmc-aggregator-{settings.name}-{plan.identity.hex()[:8]}")
        link.subscribe(topics.up(settings.name, "+"), topics.status(settings.name, "+"))
        try:
            with link:
                _serve(coordinator, link, key, plan.identity, once)
        except KeyboardInterrupt:
            log.info("stopped at version %d; start again to go on", global_head.version)
            raise
        finally:
            store.close()


def _serve(coordinator: Coordinator, link: Link, key: SigningKey, identity: bytes, once: bool) -> None:
    def publish(outgoing: list[Outgoing]) -> None:
        for item in outgoing:
            payload = seal(item.message, item.topic, key, identity)
            link.publish(item.topic, payload, retain=item.retain)

    settling_ends: float | None = None
    while True:
        event = link.next_event(_TICK_SECONDS)
        now = time.monotonic()
        match event:
            case Received(topic, payload, _, acknowledge):
                outgoing = coordinator.receive(topic, payload, now)
                acknowledge()
                publish(outgoing)
            case Connected(_, protocol, largest_payload):
                log.info("connected to the broker (MQTT %s)", protocol)
                coordinator.global_head.limit_messages(largest_payload)
                publish(coordinator.opening())
            case Disconnected(reason, fatal):
                if fatal:
                    raise LinkError(reason)
                log.warning("%s", reason)
            case PublishRefused(_, topic, reason):
                log.error("the broker refused a message on %s: %s", topic, reason)
            case SubscriptionRefused(topic_filter, reason):
                raise LinkError(f"the broker refuses the subscription to {topic_filter}: {reason}")
            case _:
                publish(coordinator.tick(now))
        if coordinator.global_head.finished and settling_ends is None:
            settling_ends = now + _SETTLING_SECONDS
            log.info("federation finished at version %d", coordinator.global_head.version)
        if once and settling_ends is not None and link.unfinished == 0:
            if coordinator.settled:
                return
            if now >= settling_ends:
                log.warning(
                    "some sites have not fetched the last version; they can while the aggregator runs"
                )
                return
