"""The aggregator as a process: its state folder, MQTT link and coordinator, put together for the loop."""

import logging
import time
from pathlib import Path

from fedmedclip.aggregator.authority.broker_access import RESPONSE_TOPIC, BrokerAccess
from fedmedclip.aggregator.broker_proof import BrokerProof
from fedmedclip.aggregator.configuration import AggregatorConfiguration, key_file_of
from fedmedclip.aggregator.coordinator import Coordinator
from fedmedclip.aggregator.edited_configuration import EditedConfiguration
from fedmedclip.aggregator.enrolment.desk import desk_of
from fedmedclip.aggregator.federation import begin_or_resume
from fedmedclip.aggregator.global_head import GlobalHead
from fedmedclip.aggregator.loop import Loop
from fedmedclip.aggregator.next_run import Successor
from fedmedclip.aggregator.page.beside import LAST_WORDS_SECONDS, page_beside
from fedmedclip.aggregator.publishing import ROOM, Publisher
from fedmedclip.aggregator.rules.names import rule_for
from fedmedclip.aggregator.store import Store
from fedmedclip.protocol import topics
from fedmedclip.protocol.bundle.bundle import Bundle, open_bundle
from fedmedclip.protocol.bundle.signature import signer
from fedmedclip.protocol.configuration import beside, read_configuration, require_paths
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.link.client_identifier import client_identifier
from fedmedclip.protocol.link.link import Link
from fedmedclip.protocol.link.settings import check_secrets
from fedmedclip.protocol.signature import SigningKey, load_or_create_signing_key
from fedmedclip.protocol.state_folder import claim_state_folder

log = logging.getLogger("fedmedclip.aggregator")


def run_aggregator(
    configuration_file: Path,
    *,
    once: bool,
    new_run: bool = False,
    from_newest: bool = False,
    insecure: bool = False,
    page_stays_seconds: float = LAST_WORDS_SECONDS,
) -> None:
    """Serve the federation of `configuration_file`; with `once`, return when its run is over.

    `new_run` and `from_newest` as for `begin_or_resume`. Where a client certificate is configured, a broker
    that lets in clients without one is refused, unless `insecure`. A page that somebody looks at stays for at
    most `page_stays_seconds` after the run. Raises FedMedClipError for anything that the operator has to
    mend; KeyboardInterrupt ends it cleanly.
    """
    while _serve_run(
        configuration_file,
        once=once,
        new_run=new_run,
        from_newest=from_newest,
        insecure=insecure,
        page_stays_seconds=page_stays_seconds,
    ):
        # What a command has begun is in the store: from here on it is served as after a start.
        new_run = from_newest = False


def _serve_run(
    configuration_file: Path,
    *,
    once: bool,
    new_run: bool,
    from_newest: bool,
    insecure: bool,
    page_stays_seconds: float,
) -> bool:
    """Serve a run; return whether a command has begun the next one."""
    written = read_configuration(configuration_file, AggregatorConfiguration)
    require_paths(configuration_file, written)
    state = beside(configuration_file, written.federation.state)
    broker = written.broker.relative_to(configuration_file.resolve().parent)
    check_secrets(broker)
    was_in_use = (state / "lock").exists()
    with claim_state_folder(state):
        _refuse_lost_state(state, new_run, was_in_use and written.federation.key is not None)
        key_file = key_file_of(configuration_file, written)
        store = Store(state / "aggregator.db")
        try:
            configuration = store.overrides.applied(written)
            settings = configuration.federation
            bundle = open_bundle(beside(configuration_file, settings.bundle))
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
            global_head.start_directions = bundle.class_embeddings
            link = Link(broker, client_id=client_identifier(broker, key, settings.name))
            coordinator = Coordinator(
                configuration,
                plan,
                store,
                global_head,
                time.monotonic(),
                lambda: link.unfinished < ROOM,
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
            proven = broker.certificate_file is None or insecure
            publisher = Publisher(link, key, coordinator)
            successor = Successor(configuration_file, configuration, store)
            page = configuration.page and configuration.page.relative_to(configuration_file.resolve().parent)
            coordinator.chronicle.note("started", "", f"run of {plan.begun} at version {global_head.version}")
            with page_beside(page, settings.name, store) as shown:
                with link:
                    loop = Loop(
                        EditedConfiguration(configuration_file, configuration),
                        coordinator,
                        store,
                        link,
                        publisher,
                        access,
                        desk,
                        BrokerProof(None if proven else broker),
                        lambda asked: successor.begin(asked, publisher.key.public_key),
                        shown.show,
                    )
                    try:
                        goes_on = loop.serve(once)
                    finally:
                        coordinator.traffic.store(link.sent_bytes, link.received_bytes, time.monotonic())
                        coordinator.chronicle.write()
                shown.show_last(coordinator, LAST_WORDS_SECONDS if goes_on else page_stays_seconds)
                return goes_on
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
