"""The aggregator as a process: state folder, MQTT link and coordinator, in one loop."""

import logging
import time
from dataclasses import dataclass, field
from pathlib import Path

from fedmedclip.aggregator.authority.broker_access import (
    CONTROL_TOPIC,
    RESPONSE_TOPIC,
    BrokerAccess,
    WantedAccess,
)
from fedmedclip.aggregator.configuration import AggregatorConfiguration, key_file_of
from fedmedclip.aggregator.control import carry_out_waiting
from fedmedclip.aggregator.coordinator import Coordinator
from fedmedclip.aggregator.enrolment.desk import Desk, Plain, desk_of
from fedmedclip.aggregator.federation import begin_or_resume
from fedmedclip.aggregator.global_head import GlobalHead
from fedmedclip.aggregator.retained import Retained
from fedmedclip.aggregator.rules.names import rule_for
from fedmedclip.aggregator.run import Outgoing
from fedmedclip.aggregator.store import Store
from fedmedclip.protocol import topics
from fedmedclip.protocol.bundle.bundle import Bundle, open_bundle
from fedmedclip.protocol.bundle.signature import signer
from fedmedclip.protocol.configuration import beside, read_configuration, require_paths
from fedmedclip.protocol.envelope import seal
from fedmedclip.protocol.errors import FedMedClipError, InvalidInputError, LinkError
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
from fedmedclip.protocol.link.probe import admits_without_certificate
from fedmedclip.protocol.link.settings import LinkSettings, check_secrets
from fedmedclip.protocol.signature import SigningKey, load_or_create_signing_key
from fedmedclip.protocol.state_folder import claim_state_folder

log = logging.getLogger("fedmedclip.aggregator")

_TICK_SECONDS = 1.0
_SETTLING_SECONDS = 60.0
# Messages that are handled before one wait for the disk, when so many have arrived.
_BATCH = 256
# What only this aggregator writes: it reads it too, to see when somebody clears or replaces what is retained.
_OWN_CHANNELS = ("plan", "head", "roster")
# Messages in the link's queue above which requests for heads have to wait.
_ROOM = 64


def run_aggregator(
    configuration_file: Path,
    *,
    once: bool,
    new_run: bool = False,
    from_newest: bool = False,
    insecure: bool = False,
) -> None:
    """Serve the federation of `configuration_file`; with `once`, return when its run is over.

    `new_run` and `from_newest` as for `begin_or_resume`. Where a client certificate is configured, a broker
    that lets in clients without one is refused, unless `insecure`. Raises FedMedClipError for anything that
    the operator has to mend; KeyboardInterrupt ends it cleanly.
    """
    configuration = read_configuration(configuration_file, AggregatorConfiguration)
    require_paths(configuration_file, configuration)
    settings = configuration.federation
    bundle = open_bundle(beside(configuration_file, settings.bundle))
    state = beside(configuration_file, settings.state)
    broker = configuration.broker.relative_to(configuration_file.resolve().parent)
    check_secrets(broker)
    was_in_use = (state / "lock").exists()
    with claim_state_folder(state):
        _refuse_lost_state(state, new_run, was_in_use and settings.key is not None)
        key_file = key_file_of(configuration_file, configuration)
        store = Store(state / "aggregator.db")
        try:
            desk = desk_of(configuration_file, configuration, store)
            key = desk.key if desk else load_or_create_signing_key(key_file)
            _say_who_signed(bundle, key, key_file)
            plan, specification = begin_or_resume(
                configuration,
                bundle,
                store,
                key.public_key,
                new_run=new_run,
                from_newest=from_newest,
                former_keys=desk.register.roster.coordinator_keys if desk else (),
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
                configuration,
                plan,
                store,
                global_head,
                time.monotonic(),
                lambda: link.unfinished < _ROOM,
                register=desk.register if desk else None,
            )
            log.info(
                "federation %s, run %s at version %d of %d; aggregator key %s",
                settings.name, plan.begun, global_head.version, plan.rounds, key.public_key.hex(),
            )  # fmt: skip
            link.subscribe(
                topics.up(settings.name, "+"),
                topics.status(settings.name, "+"),
                topics.plan(settings.name),
                topics.head(settings.name),
            )
            if desk is not None:
                link.subscribe(*desk.topic_filters)
            access = None
            if settings.broker_access:
                access = BrokerAccess(settings.name)
                link.subscribe(RESPONSE_TOPIC)
            with link:
                service = _Service(
                    configuration_file, configuration, coordinator, store, link, key, access, desk
                )
                if broker.certificate_file is not None and not insecure:
                    service.unproven = broker
                service.serve(once)
        except KeyboardInterrupt:
            log.info("stopped; start again to go on")
            raise
        finally:
            store.close()


def _say_who_signed(bundle: Bundle, key: SigningKey, key_file: Path) -> None:
    """Say that sites which pin this aggregator's key will refuse the bundle, and what to do."""
    if signer(bundle.folder, bundle.digest) != key.public_key:
        log.info(
            "bundle %s is not signed by this aggregator's key %s: sites with this aggregator_key refuse it; "
            "sign it before it is copied to them: fedmedclip bundle sign %s --key %s",
            bundle.folder, key.public_key.hex(), bundle.folder, key_file,
        )  # fmt: skip


def _refuse_lost_state(state: Path, new_run: bool, was_in_use: bool) -> None:
    """A folder that was in use, without its database, is what is left of a federation, not the beginning."""
    left = was_in_use or (state / "aggregator.key").exists()
    if left and not (state / "aggregator.db").exists() and not new_run:
        raise InvalidInputError(
            f"{state} was an aggregator's, but has no aggregator.db: its state was lost; restore a "
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
    access: BrokerAccess | None
    desk: Desk | None
    # The broker's settings while it is not known that it refuses who shows no certificate.
    unproven: LinkSettings | None = None
    _edited_at: float = field(init=False)
    _retained: Retained = field(default_factory=Retained)

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
                    self._handle(event, now)
            self._reread_configuration(now)
            if self.desk is not None:
                self._attend(self.desk, now)
            if self.access is not None:
                self._command_broker(self.access.want(self._wanted_access(), now))
                self._command_broker(self.access.tick(now))
            self._publish(carry_out_waiting(self.store, self.coordinator, now))
            self._publish(self.coordinator.tick(now))
            self._mend_retained(now)
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
                if message.topic == RESPONSE_TOPIC:
                    if self.access is not None:
                        self._command_broker(self.access.answered(message.payload, now))
                elif self.desk is not None and self.desk.takes(message.topic):
                    self._publish_plain(self.desk.hear(message, now, time.time()))
                elif topics.channel_of(message.topic) in _OWN_CHANNELS:
                    self._retained.seen(message.topic, message.payload, now)
                    if self.desk is not None:
                        self.desk.hear_notice(message.topic, message.payload)
                else:
                    outgoing += self.coordinator.receive(message.topic, message.payload, now)
        for message in received:
            message.acknowledge()
        self._publish(outgoing)

    def _handle(self, event: Event, now: float) -> None:
        match event:
            case Connected(_, protocol, largest_payload):
                log.info("connected to the broker (MQTT %s)", protocol)
                self._prove_broker()
                if self.access is not None:
                    self._command_broker(self.access.connected(largest_payload, now))
                self.coordinator.global_head.limit_messages(largest_payload)
                self._retained.connected(now)
                if self.desk is not None:
                    self.desk.connected(now)
                self._publish(self.coordinator.opening())
            case Disconnected(reason, fatal):
                if fatal:
                    raise LinkError(reason)
                self._retained.disconnected()
                log.warning("%s", reason)
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

    def _prove_broker(self) -> None:
        """Look once whether the broker asks for certificates, when it is there to be asked."""
        if self.unproven is None:
            return
        admits = admits_without_certificate(self.unproven)
        if admits:
            raise InvalidInputError(
                f"the broker at {self.unproven.address} lets in clients that show no certificate; let it ask "
                "for them (Mosquitto: require_certificate true), or start with --insecure"
            )
        if admits is None:
            log.warning(
                "whether the broker asks for certificates could not be told; the next connection tells"
            )
        else:
            self.unproven = None

    def _wanted_access(self) -> WantedAccess:
        """Return who is to get through to the broker."""
        if self.desk is not None:
            return self.desk.wanted_access(time.time())
        return WantedAccess(sites=frozenset(self.configuration.sites))

    def _is_let_in(self, site: str) -> bool:
        """Whether the broker is known to let a member in."""
        if self.access is None:
            return True
        return self.access.applied is not None and site in self.access.applied.sites

    def _attend(self, desk: Desk, now: float) -> None:
        """Take over what changed in the federation's folder, and what members asked of it."""
        for site, request in list(self.coordinator.renewal_requests.items()):
            del self.coordinator.renewal_requests[site]
            try:
                if (answer := desk.renew(site, request, time.time())) is not None:
                    self._publish([Outgoing(topics.down(self.coordinator.federation, site), answer)])
            except FedMedClipError as error:
                log.warning("refused to renew the certificate of %s: %s", site, error)
        news = desk.look(now, time.time(), self._is_let_in)
        rotated = desk.key.public_key != self.key.public_key
        self.key = desk.key
        if news.notice_due or rotated:
            self._publish(self.coordinator.roster_notice())
        if rotated:
            log.warning("the coordinator's key is rotated: %s signs now", self.key.public_key.hex())
            # After the roster, by which sites know the key.
            self._publish(self.coordinator.revise(now, aggregator_key=self.key.public_key))
        if news.roster_changed:
            self._publish(self.coordinator.follow_membership(now))
        self._publish([Outgoing(topic, message) for topic, message in news.messages])
        self._publish_plain(news.plain)
        self.coordinator.warnings = desk.warnings()

    def _publish_plain(self, messages: list[Plain]) -> None:
        for plain in messages:
            self.link.publish(plain.topic, plain.payload, retain=plain.retain)

    def _command_broker(self, commands: list[bytes]) -> None:
        for payload in commands:
            self.link.publish(CONTROL_TOPIC, payload)

    def _mend_retained(self, now: float) -> None:
        """Put back what somebody has cleared or replaced at the broker, and look now and again."""
        for topic, payload in self._retained.due(now):
            self.link.publish(topic, payload, retain=True)
        if self.link.unfinished < _ROOM and (topics_to_read := self._retained.to_look_at(now)):
            self.link.read_retained(*topics_to_read)

    def _publish(self, outgoing: list[Outgoing]) -> None:
        for item in outgoing:
            payload = seal(item.message, item.topic, self.key, self.coordinator.plan.identity)
            if item.retain:
                self._retained.published(item.topic, payload, time.monotonic())
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
