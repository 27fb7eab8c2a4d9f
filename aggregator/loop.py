"""The aggregator's loop: what the link brings goes to coordinator and desk, what they answer is published."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from fedmedclip.aggregator.authority.broker_access import (
    CONTROL_TOPIC,
    RESPONSE_TOPIC,
    BrokerAccess,
    WantedAccess,
)
from fedmedclip.aggregator.broker_proof import BrokerProof
from fedmedclip.aggregator.commands import NextRun
from fedmedclip.aggregator.control import carry_out_waiting
from fedmedclip.aggregator.coordinator import Coordinator
from fedmedclip.aggregator.edited_configuration import EditedConfiguration
from fedmedclip.aggregator.enrolment.attendance import attend
from fedmedclip.aggregator.enrolment.desk import Desk
from fedmedclip.aggregator.publishing import Publisher
from fedmedclip.aggregator.run import Outgoing
from fedmedclip.aggregator.store import Store
from fedmedclip.protocol import topics
from fedmedclip.protocol.errors import LinkError
from fedmedclip.protocol.link.link import (
    Connected,
    Disconnected,
    Event,
    Link,
    PublishRefused,
    Received,
    SubscriptionRefused,
)

log = logging.getLogger("fedmedclip.aggregator")

_TICK_SECONDS = 1.0
_SETTLING_SECONDS = 60.0
# Messages that are handled before one wait for the disk, when so many have arrived.
_BATCH = 256
# What only this aggregator writes: it reads it too, to see when somebody clears or replaces what is retained.
_OWN_CHANNELS = ("plan", "head", "roster")


@dataclass
class Loop:
    """All that one run of the aggregator's process needs, put together by `service`."""

    configuration: EditedConfiguration
    coordinator: Coordinator
    store: Store
    link: Link
    publisher: Publisher
    access: BrokerAccess | None
    desk: Desk | None
    proof: BrokerProof
    begin_next: Callable[[NextRun], str]

    def serve(self, once: bool) -> bool:
        """Handle what comes for ever; with `once`, until the run is over.

        Return whether a command has begun the next run, which has to be served from here on. Raises
        FedMedClipError for anything that the operator has to mend.
        """
        settling_ends: float | None = None
        while True:
            events = self._next_events()
            now = time.monotonic()
            received = [event for event in events if isinstance(event, Received)]
            if received:
                self._receive(received, now)
            for event in events:
                if not isinstance(event, Received):
                    self._handle(event, now)
            self.configuration.reread(self.coordinator, self.store, self.publisher, now)
            if self.desk is not None:
                attend(self.desk, self.coordinator, self.publisher, now, self._is_let_in)
            if self.access is not None:
                self.publisher.command_broker(self.access.want(self._wanted_access(), now))
                self.publisher.command_broker(self.access.tick(now))
            key, run = self.publisher.key, self.coordinator.plan.identity
            self.publisher.publish(carry_out_waiting(self.store, self.coordinator, now, key, self.begin_next))
            plan = self.store.plan()
            if plan is not None and plan.identity != run:
                return True
            self.publisher.publish(self.coordinator.tick(now))
            self.publisher.mend_retained(now)
            head = self.coordinator.global_head
            counted = self.link.sent_bytes, self.link.received_bytes
            self.coordinator.traffic.note(*counted, head.version + 1, now)
            if not head.finished:
                settling_ends = None
                continue
            if settling_ends is None:
                settling_ends = now + _SETTLING_SECONDS
                log.info("run finished at version %d", head.version)
            if once and self.link.unfinished == 0:
                if self.coordinator.settled:
                    return False
                if now >= settling_ends:
                    log.warning("some sites have not fetched the last version; they can while it runs")
                    return False

    def _next_events(self) -> list[Event]:
        """Wait for an event, and take along what has arrived with it."""
        events: list[Event] = []
        event = self.link.next_event(_TICK_SECONDS)
        while event is not None:
            events.append(event)
            if len(events) == _BATCH:
                break
            event = self.link.next_event(0.0)
        return events

    def _receive(self, received: list[Received], now: float) -> None:
        """Handle messages with one wait for the disk; acknowledge them when all that follows is on it."""
        outgoing: list[Outgoing] = []
        with self.store.batch():
            for message in received:
                if message.topic == RESPONSE_TOPIC:
                    if self.access is not None:
                        self.publisher.command_broker(self.access.answered(message.payload, now))
                elif self.desk is not None and self.desk.takes(message.topic):
                    self.publisher.publish_plain(self.desk.hear(message, now, time.time()))
                elif topics.channel_of(message.topic) in _OWN_CHANNELS:
                    self.publisher.retained.seen(message.topic, message.payload, now)
                    if self.desk is not None:
                        self.desk.hear_notice(message.topic, message.payload)
                else:
                    outgoing += self.coordinator.receive(message.topic, message.payload, now)
        for message in received:
            message.acknowledge()
        self.publisher.publish(outgoing)

    def _handle(self, event: Event, now: float) -> None:
        match event:
            case Connected(_, protocol, largest_payload):
                log.info("connected to the broker (MQTT %s)", protocol)
                self.proof.look()
                if self.access is not None:
                    self.publisher.command_broker(self.access.connected(largest_payload, now))
                self.coordinator.global_head.limit_messages(largest_payload)
                self.publisher.retained.connected(now)
                if self.desk is not None:
                    self.desk.connected(now)
                self.publisher.publish(self.coordinator.opening())
            case Disconnected(reason, fatal):
                if fatal:
                    raise LinkError(reason)
                self.publisher.retained.disconnected()
                log.warning("%s", reason, extra={"event": "broker.disconnected"})
                if self.access is not None:
                    self.access.disconnected()
            case PublishRefused(_, topic, reason) | SubscriptionRefused(topic, reason) if (
                self.access is not None and topic in (CONTROL_TOPIC, RESPONSE_TOPIC)
            ):
                self.access.refused(reason, now)
            case PublishRefused(_, topic, reason):
                log.error("the broker refused a message on %s: %s", topic, reason)
            case SubscriptionRefused(topic_filter, reason):
                raise LinkError(f"the broker refuses the subscription to {topic_filter}: {reason}")
            case _:
                pass

    def _wanted_access(self) -> WantedAccess:
        """Return who is to get through to the broker."""
        if self.desk is not None:
            return self.desk.wanted_access(time.time())
        return WantedAccess(sites=frozenset(self.configuration.newest.sites))

    def _is_let_in(self, site: str) -> bool:
        """Whether the broker is known to let a member in."""
        if self.access is None:
            return True
        return self.access.applied is not None and site in self.access.applied.sites
