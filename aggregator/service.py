"""The aggregator as a process: state folder, MQTT link and coordinator, in one loop."""

import logging
import time
from dataclasses import dataclass, field
from pathlib import Path

from fedmedclip.aggregator.configuration import AggregatorConfiguration
from fedmedclip.aggregator.control import carry_out_waiting
from fedmedclip.aggregator.coordinator import Coordinator, Outgoing
from fedmedclip.aggregator.federation import begin_or_resume
from fedmedclip.aggregator.global_head import GlobalHead
from fedmedclip.aggregator.rules.names import rule_for
from fedmedclip.aggregator.store import Store
from fedmedclip.protocol import topics
from fedmedclip.protocol.bundle.bundle import open_bundle
from fedmedclip.protocol.configuration import beside, read_configuration, require_paths
from fedmedclip.protocol.envelope import open_envelope, seal
from fedmedclip.protocol.errors import FedMedClipError, InvalidInputError, LinkError, MessageError
from fedmedclip.protocol.link.client_identifier import client_identifier
from fedmedclip.protocol.link.link import (
    Connected,
    Disconnected,
    Event,
    Link,
    PublishRefused,
    Received,
    SubscriptionRefused,
)
from fedmedclip.protocol.link.settings import warn_of_secrets
from fedmedclip.protocol.signature import SigningKey, load_or_create_signing_key
from fedmedclip.protocol.state_folder import claim_state_folder

log = logging.getLogger("fedmedclip.aggregator")

_TICK_SECONDS = 1.0
_SETTLING_SECONDS = 60.0
# Messages that are handled before one wait for the disk, when so many have arrived.
_BATCH = 256
# Messages in the link's queue above which requests for heads have to wait.
_ROOM = 64
# How often a retained message that somebody replaced is put back, at most.
_REPAIR_SECONDS = 5.0


def run_aggregator(
    configuration_file: Path, *, once: bool, new_run: bool = False, from_newest: bool = False
) -> None:
    """Serve the federation of `configuration_file`; with `once`, return when its run is over.

    `new_run` and `from_newest` as for `begin_or_resume`. Raises FedMedClipError for anything that the
    operator has to mend; KeyboardInterrupt ends it cleanly.
    """
    configuration = read_configuration(configuration_file, AggregatorConfiguration)
    require_paths(configuration_file, configuration)
    settings = configuration.federation
    bundle = open_bundle(beside(configuration_file, settings.bundle))
    state = beside(configuration_file, settings.state)
    broker = configuration.broker.relative_to(configuration_file.resolve().parent)
    warn_of_secrets(broker)
    with claim_state_folder(state):
        _refuse_lost_state(state, new_run)
        key = load_or_create_signing_key(state / "aggregator.key")
        store = Store(state / "aggregator.db")
        try:
            plan, specification = begin_or_resume(
                configuration, bundle, store, key.public_key, new_run=new_run, from_newest=from_newest
            )
            global_head = GlobalHead(
                store,
                specification,
                plan.downlink_codec,
                plan.rounds,
                broker.maximum_message_bytes,
                rule_for(plan.method, settings.rule),
            )
            link = Link(broker, client_id=client_identifier(broker, key, settings.name))
            coordinator = Coordinator(
                configuration, plan, store, global_head, time.monotonic(), lambda: link.unfinished < _ROOM
            )
            log.info(
                "federation %s, run %s at version %d of %d; aggregator key %s",
                settings.name, plan.begun, global_head.version, plan.rounds, key.public_key.hex(),
            )  # fmt: skip
            link.subscribe(
                topics.up(settings.name, "+"),
                topics.status(settings.name, "+"),
                # Its own, to see when somebody clears or replaces what is retained there.
                topics.plan(settings.name),
                topics.head(settings.name),
            )
            with link:
                _Service(configuration_file, configuration, coordinator, store, link, key).serve(once)
        except KeyboardInterrupt:
            log.info("stopped; start again to go on")
            raise
        finally:
            store.close()


def _refuse_lost_state(state: Path, new_run: bool) -> None:
    """A key without its database is what is left of a federation, not the beginning of one."""
    if (state / "aggregator.key").exists() and not (state / "aggregator.db").exists() and not new_run:
        raise InvalidInputError(
            f"{state} has the key of an aggregator, but not its aggregator.db: its state was lost; restore a "
            "backup (fedmedclip aggregator restore), or begin another run with the same key: --new-run"
        )


@dataclass
class _Service:
    """The loop, and what it remembers between two events."""

    configuration_file: Path
    configuration: AggregatorConfiguration
    coordinator: Coordinator
    store: Store
    link: Link
    key: SigningKey
    _edited_at: float = field(init=False)
    _repaired_at: float = -_REPAIR_SECONDS

    def __post_init__(self) -> None:
        self._edited_at = self._modified()

    def serve(self, once: bool) -> None:
        """Handle what comes until the run is over, or for ever."""
        settling_ends: float | None = None
        while True:
            events = self._next_events()
            now = time.monotonic()
            received = [event for event in events if isinstance(event, Received)]
            if received:
                self._receive(received, now)
            for event in events:
                if not isinstance(event, Received):
                    self._handle(event)
            self._reread_configuration(now)
            self._publish(carry_out_waiting(self.store, self.coordinator, now))
            self._publish(self.coordinator.tick(now))
            head = self.coordinator.global_head
            if not head.finished:
                settling_ends = None
                continue
            if settling_ends is None:
                settling_ends = now + _SETTLING_SECONDS
                log.info("run finished at version %d", head.version)
            if once and self.link.unfinished == 0:
                if self.coordinator.settled:
                    return
                if now >= settling_ends:
                    log.warning("some sites have not fetched the last version; they can while it runs")
                    return

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
                if topics.channel_of(message.topic) in ("plan", "head"):
                    self._watch_retained(message, now)
                else:
                    outgoing += self.coordinator.receive(message.topic, message.payload, now)
        for message in received:
            message.acknowledge()
        self._publish(outgoing)

    def _handle(self, event: Event) -> None:
        match event:
            case Connected(_, protocol, largest_payload):
                log.info("connected to the broker (MQTT %s)", protocol)
                self.coordinator.global_head.limit_messages(largest_payload)
                self._publish(self.coordinator.opening())
            case Disconnected(reason, fatal):
                if fatal:
                    raise LinkError(reason)
                log.warning("%s", reason)
            case PublishRefused(_, topic, reason):
                log.error("the broker refused a message on %s: %s", topic, reason)
            case SubscriptionRefused(topic_filter, reason):
                raise LinkError(f"the broker refuses the subscription to {topic_filter}: {reason}")
            case _:
                pass

    def _watch_retained(self, message: Received, now: float) -> None:
        """Put plan and head back when somebody else has cleared or replaced them at the broker."""
        if now - self._repaired_at < _REPAIR_SECONDS or self._is_own(message):
            return
        self._repaired_at = now
        log.warning("somebody changed what is retained on %s; putting it back", message.topic)
        self._publish(self.coordinator.opening())

    def _is_own(self, message: Received) -> bool:
        try:
            envelope = open_envelope(message.payload, message.topic)
            envelope.verify(self.key.public_key, self.coordinator.plan.identity)
        except MessageError:
            return False
        return True

    def _publish(self, outgoing: list[Outgoing]) -> None:
        for item in outgoing:
            payload = seal(item.message, item.topic, self.key, self.coordinator.plan.identity)
            self.link.publish(item.topic, payload, retain=item.retain)

    def _modified(self) -> float:
        try:
            return self.configuration_file.stat().st_mtime
        except OSError:
            return 0.0

    def _reread_configuration(self, now: float) -> None:
        """Take over what was edited in the configuration; what cannot be used changes nothing."""
        if (modified := self._modified()) in (0.0, self._edited_at):
            return
        self._edited_at = modified
        try:
            edited = read_configuration(self.configuration_file, AggregatorConfiguration)
            self._publish(self.coordinator.reconfigure(self.configuration, edited, now))
            self.store.describe(
                edited.federation.name,
                {
                    "rounds": edited.federation.rounds,
                    "maximum_update_norm": edited.federation.maximum_update_norm,
                },
            )
            self.configuration = edited
            log.info("the configuration was edited and is used; what names another run waits for --new-run")
        except FedMedClipError as error:
            log.error("the configuration was edited and cannot be used: %s", error)
