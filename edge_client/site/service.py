"""A site as a process: features, state folder, MQTT link and agent, in one loop."""

import logging
import time
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from fedmedclip.edge_client.data_report.at_start import FOLDER, report_at_start
from fedmedclip.edge_client.features.feature_store import FeatureStore
from fedmedclip.edge_client.features.labelled import SiteFeatures, load_site_features
from fedmedclip.edge_client.features.self_test import require_self_test_once
from fedmedclip.edge_client.images.grouping import GroupNaming
from fedmedclip.edge_client.images.split import SPLIT_FILE
from fedmedclip.edge_client.ledger.incoming import Incoming
from fedmedclip.edge_client.ledger.message_ledger import MessageLedger
from fedmedclip.edge_client.ledger.segments import LEDGER_FOLDER
from fedmedclip.edge_client.progress import progress_bar
from fedmedclip.edge_client.site.agent import SiteAgent
from fedmedclip.edge_client.site.answering_version import AnsweringVersion
from fedmedclip.edge_client.site.configuration import SiteConfiguration, SiteSettings
from fedmedclip.edge_client.site.credentials import Credentials
from fedmedclip.edge_client.site.group_key import GROUP_KEY, load_or_create_group_key
from fedmedclip.edge_client.site.learner import LearnerFiles, SiteLearner
from fedmedclip.edge_client.site.membership import Membership
from fedmedclip.edge_client.site.next_bundle import BundleWatch
from fedmedclip.edge_client.site.opened_page import open_page
from fedmedclip.edge_client.site.patience import Patience
from fedmedclip.edge_client.site.post import Post
from fedmedclip.edge_client.site.renewal import Renewing
from fedmedclip.edge_client.site.roles import Identity
from fedmedclip.edge_client.site.roster_follower import roster_follower
from fedmedclip.edge_client.site.state import SiteState
from fedmedclip.edge_client.site.watch import Watch
from fedmedclip.protocol import topics
from fedmedclip.protocol.bundle.bundle import Bundle, open_bundle
from fedmedclip.protocol.configuration import beside, read_configuration, require_paths
from fedmedclip.protocol.errors import LinkError, StorageError
from fedmedclip.protocol.link.client_identifier import client_identifier
from fedmedclip.protocol.link.link import (
    Connected,
    Disconnected,
    Link,
    Published,
    PublishRefused,
    Received,
    SubscriptionRefused,
)
from fedmedclip.protocol.link.link import Message as LinkMessage
from fedmedclip.protocol.link.settings import LinkSettings, check_secrets
from fedmedclip.protocol.messages import Message as ProtocolMessage
from fedmedclip.protocol.messages import Status
from fedmedclip.protocol.moments import Moments
from fedmedclip.protocol.progress import progress_lines
from fedmedclip.protocol.seeds import derive_seed
from fedmedclip.protocol.signature import SigningKey, load_or_create_signing_key
from fedmedclip.protocol.state_folder import claim_state_folder
from fedmedclip.protocol.trust.decision import Trust, trust_of_site
from fedmedclip.protocol.trust.pins import pin_where_possible

log = logging.getLogger("fedmedclip.site")

_TICK_SECONDS = 1.0
HEARTBEAT_SECONDS = 60.0
"""How often a site says that it is there, whatever else it says: a third of the aggregator's usual lease.

A status that somebody deleted at the broker is there again as soon.
"""


def run_site(configuration_file: Path, *, once: bool) -> None:
    """Take part in the federation of `configuration_file`; with `once`, return when it is over.

    Raises FedMedClipError for anything that the operator has to mend; KeyboardInterrupt ends it cleanly.
    """
    while _take_part(configuration_file, once=once):
        log.info("going on with the bundle of the next run")


def _take_part(configuration_file: Path, *, once: bool) -> bool:
    """Take part with the bundle that is here; return whether that of the next run has come."""
    configuration = read_configuration(configuration_file, SiteConfiguration)
    require_paths(configuration_file, configuration)
    settings, resources = configuration.site, configuration.resources
    state_folder = beside(configuration_file, settings.state)
    broker = configuration.broker.relative_to(configuration_file.resolve().parent)
    check_secrets(broker)
    with claim_state_folder(state_folder):
        if (state_folder / "site.key").exists() and not (state_folder / "site.db").exists():
            log.warning(
                "%s has a key but no site.db: the private head begins anew; with a backup, stop and restore "
                "it: fedmedclip site restore", state_folder,
            )  # fmt: skip
        key = load_or_create_signing_key(state_folder / "site.key")
        with progress_lines("opening and testing the bundle"):
            bundle = open_bundle(beside(configuration_file, settings.bundle))
            follower = roster_follower(configuration_file, settings)
            roster = None if follower is None else follower.roster
            trust = trust_of_site(settings.aggregator_key, roster, insecure=settings.insecure)
            trust.require_bundle(bundle)
            if require_self_test_once(bundle, state_folder, resources.threads, resources.providers):
                log.info("self-test passed: this machine computes what the bundle's maker computed")
        features = _features(configuration, configuration_file, bundle, state_folder)
        state = SiteState(state_folder / "site.db", replay_rounds=configuration.policy.replay_rounds)
        ledger = MessageLedger(state_folder / LEDGER_FOLDER, state.ledger_end)
        incoming = Incoming(ledger)
        moments = Moments(state.session(), state.begin_session)
        post = Post(settings.federation, settings.name, key, ledger)
        link = Link(
            broker,
            client_id=client_identifier(broker, key, settings.federation, settings.name),
            will=lambda: post.last_will(moments.connect()),
        )
        software = version("fedmedclip-edge")
        shared_metrics = state.shared_metrics(
            configuration.policy,
            software,
            own_privacy=configuration.privacy.epsilon is not None,
            active=AnsweringVersion(state_folder),
        )
        learner = SiteLearner(
            settings.name,
            settings.federation,
            bundle,
            features,
            state,
            LearnerFiles(state_folder / "heads.safetensors", state_folder / "evaluation.json", key),
            resources.threads,
            settings.ensemble,
            lambda: (link.sent_bytes, link.received_bytes),
            configuration.privacy.floors,
            configuration.privacy,
            configuration.answers,
            configuration.policy.activation,
            shared_metrics,
        )
        pinned = settings.aggregator_key
        identity = Identity(
            settings.federation,
            settings.name,
            key.public_key,
            bundle.digest,
            None if pinned is None else bytes.fromhex(pinned),
            len(bundle.manifest.class_names),
            bundle.manifest.embedding_size,
            software,
            bundle.class_embeddings,
            tuple(bundle.manifest.class_names),
        )
        agent = SiteAgent(
            identity,
            state,
            learner,
            broker.maximum_message_bytes,
            settings.uplink_codec,
            moments,
            None if follower is None else Membership(follower, _renewing(settings, broker)),
            incoming.take,
            configuration.policy,
            ledger,
            shared_metrics,
        )
        watch = Watch(state.events, agent.standing)
        agent.observe(watch)
        page = open_page(configuration, configuration_file, state_folder, watch, agent, link)
        log.info("site %s, key %s", settings.name, key.public_key.hex())
        if not trust.insecure:
            _pin_for_this_user(settings, configuration_file, key, trust)
        link.subscribe(
            topics.plan(settings.federation),
            topics.head(settings.federation),
            topics.blocks(settings.federation),
            topics.down(settings.federation, settings.name),
            *([] if settings.roster is None else [topics.roster(settings.federation)]),
        )
        link.start()
        try:
            bundles = BundleWatch(configuration_file, trust)
            return _serve(agent, link, post, incoming, once, bundles, watch)
        except KeyboardInterrupt:
            log.info("stopped at version %d; start again to go on", agent.version)
            raise
        finally:
            if page is not None:
                page.stop()
            try:
                link.close(_last_words(post, agent))
                incoming.sum_up(time.monotonic(), at_once=True)
                watch.end()
            finally:
                ledger.close()
                state.close()


def _renewing(settings: SiteSettings, broker: LinkSettings) -> Renewing | None:
    if broker.certificate_file is None or broker.ca_file is None:
        return None
    credentials = Credentials(Path(broker.certificate_file).parent)
    # Where key and certificate lie in one file, as `join` has it, they can be changed at once.
    if not broker.certificate_file == broker.key_file == str(credentials.path):
        return None
    return Renewing(credentials, Path(broker.ca_file), settings.name)


def _pin_for_this_user(
    settings: SiteSettings, configuration_file: Path, key: SigningKey, trust: Trust
) -> None:
    """Let `predict` and its like take this site's heads, and the bundle that its operator trusts."""
    keys = {key.public_key: f"site {settings.name} of {settings.federation}"}
    if settings.aggregator_key is not None:
        keys |= dict.fromkeys(sorted(trust.keys), f"aggregator of {settings.federation}")
    for public_key, whose in keys.items():
        pin_where_possible(public_key, f"{whose}, {configuration_file.resolve()}")


def _features(
    configuration: SiteConfiguration, configuration_file: Path, bundle: Bundle, state_folder: Path
) -> SiteFeatures:
    settings, split = configuration.site, configuration.split
    naming = GroupNaming(
        split.group_column,
        None if split.groups is None else beside(configuration_file, split.groups),
        load_or_create_group_key(state_folder / GROUP_KEY),
    )
    split_file = state_folder / SPLIT_FILE
    store_path = settings.feature_store and beside(configuration_file, settings.feature_store)
    with (
        FeatureStore(store_path or state_folder / "features.db") as store,
        progress_bar("computing features") as progress,
    ):
        features = load_site_features(
            beside(configuration_file, settings.data),
            bundle,
            store,
            split_file=split_file,
            seed=derive_seed(split.seed, site=settings.name, purpose="split"),
            fractions={
                "train": 1 - split.validation - split.test,
                "validation": split.validation,
                "test": split.test,
            },
            settings=configuration.images,
            naming=naming,
            strict=configuration.images.strict,
            batch_size=configuration.resources.feature_batch,
            threads=configuration.resources.threads,
            providers=configuration.resources.providers,
            progress=progress,
        )
    if features.read is not None and features.grouping is not None:
        report_at_start(state_folder, features.read, features.grouping, configuration.images)
    for line in features.report.lines():
        log.info("%s", line, extra={"event": "data.remark"})
    if features.report.skipped:
        # Names of files may be those of patients: they are in the report, not in a log that travels.
        log.warning("which files cannot be used is in %s", state_folder / FOLDER)
    if features.leak is not None and (reservation := features.leak.line(str(split_file))):
        log.warning("%s", reservation, extra={"event": "data.split_leaks"})
    for line in configuration.privacy.floors.lines(features.train.labels, bundle.manifest.class_names):
        log.warning("%s", line, extra={"event": "privacy.group_too_small"})
    # Lists of all images; nothing that trains needs them.
    return replace(features, read=None, grouping=None)


def _last_words(post: Post, agent: SiteAgent) -> list[LinkMessage]:
    try:
        return [post.status(agent.status(online=False))]
    except StorageError as error:
        log.warning("the broker says for this site that it is gone: %s", error)
        return []


def _serve(
    agent: SiteAgent,
    link: Link,
    post: Post,
    incoming: Incoming,
    once: bool,
    bundles: BundleWatch,
    watch: Watch,
) -> bool:
    """Handle what arrives; train and ask only when nothing more waits, so that no round trains in vain.

    Returns whether the bundle of the next run has come, with which the site goes on.
    """
    said: Status | None = None
    said_at = 0.0
    patience = Patience(post.federation)
    while True:
        watch.look()
        event = link.next_event(0.0)
        if event is None:
            now = time.monotonic()
            _publish(link, post, agent, agent.tick(now))
            due = agent.joined and now - said_at >= HEARTBEAT_SECONDS
            if agent.owes_status(said) or due:
                said, said_at = agent.status(online=True), now
                _send(link, post.status(said))
            post.ledger.keep_end()
            incoming.sum_up(now)
            if bundles.found(agent.wanted_bundle, now):
                return True
            if once and agent.finished and agent.joined and link.unfinished == 0:
                return False
            if patience.ends(joined=agent.joined, run_over=once and agent.finished, now=now):
                log.info("the run is over at version %d, which is here; no aggregator answers", agent.version)
                return False
            event = link.next_event(_TICK_SECONDS)
        now = time.monotonic()
        match event:
            case Received(topic, payload, _, acknowledge):
                answers = agent.receive(topic, payload, now)
                incoming.came(topic, payload, now)
                acknowledge()
                _publish(link, post, agent, answers)
            case Connected(_, protocol, largest_payload):
                log.info("connected to the broker (MQTT %s)", protocol)
                agent.limit_messages(largest_payload)
                agent.connected()
                watch.connection(stands=True, words=f"to the broker, with MQTT {protocol}")
                said = None
                patience.connected(now)
            case Disconnected(reason, fatal):
                if fatal:
                    raise LinkError(reason)
                log.warning("%s", reason, extra={"event": "broker.disconnected"})
                agent.disconnected()
                watch.connection(stands=False, words=reason)
                patience.disconnected()
            case Published(token):
                agent.published(token)
            case PublishRefused(_, topic, reason):
                log.error("the broker refused a message on %s: %s", topic, reason)
            case SubscriptionRefused(topic_filter, reason):
                # Rules follow the members, at times with delay: the link asks again.
                log.error(
                    "the broker refuses the subscription to %s (%s); is %s a member?",
                    topic_filter,
                    reason,
                    post.site,
                )


def _publish(link: Link, post: Post, agent: SiteAgent, messages: list[ProtocolMessage]) -> None:
    for message, sealed in zip(
        messages, post.up(messages, agent.plan_identity, agent.run_number), strict=True
    ):
        agent.handed_over(message, _send(link, sealed))


def _send(link: Link, message: LinkMessage) -> int:
    return link.publish(message.topic, message.payload, retain=message.retain)
