"""Whom a Mosquitto as we configure it lets do what, and what happens to members that come and go."""

import socket
import ssl
import time
from datetime import timedelta

import paho.mqtt.client as paho
import pytest

from fedmedclip.aggregator.authority.access_rules import WantedAccess
from fedmedclip.aggregator.authority.broker_files import install_revocation_list
from fedmedclip.aggregator.authority.certificate_authority import create_authority, revoke
from fedmedclip.protocol.link import session
from fedmedclip.protocol.link.link import Connected, Disconnected, Received, SubscriptionRefused
from tests.aggregator.authority.secured import (
    FEDERATION,
    PASSPHRASE,
    SecuredBroker,
    managed,
    now,
    published,
    refused,
)
from tests.protocol.link.helpers import open_link, quiet, unique, wait_for

BASE = f"fmc1/{FEDERATION}"
INVITATION = "0123456789abcdef"
MEMBERS = WantedAccess(frozenset({"hospital-a", "hospital-b"}), frozenset({INVITATION}))


@pytest.fixture(scope="module")
def broker(tmp_path_factory, mosquitto_installed):
    with SecuredBroker(tmp_path_factory.mktemp("secured") / "a folder", MEMBERS) as broker:
        yield broker


def test_a_site_reaches_its_own_topics_and_no_other(broker):
    other, elsewhere = "hospital-b", "fmc1/retina"
    with broker.open("hospital-a") as site, broker.open("aggregator") as aggregator:
        for topic in ("plan", "head", "blocks", "roster", "down/hospital-a"):
            site.subscribe(f"{BASE}/{topic}")
            assert published(aggregator, f"{BASE}/{topic}", topic.encode(), retain=True)
        for topic in ("plan", "head", "blocks", "roster", "down/hospital-a"):
            found = wait_for(site, Received, lambda event, wanted=topic: event.payload == wanted.encode())
            assert found.topic == f"{BASE}/{topic}"
            found.acknowledge()
        for topic in ("up", "status", "doctor"):
            assert published(site, f"{BASE}/{topic}/hospital-a")
            assert not published(site, f"{BASE}/{topic}/{other}", b"", retain=True)
        for topic in ("plan", "head", "roster", f"down/{other}"):
            # An empty retained message clears what is retained there.
            assert not published(site, f"{BASE}/{topic}", b"", retain=True)
        assert not published(site, f"{elsewhere}/status/hospital-a", retain=True)
        assert not published(site, "$CONTROL/dynamic-security/v1", b'{"commands":[]}')
        assert not published(site, f"{BASE}/enrol/{INVITATION}")
        with broker.open("hospital-b") as witness:
            for topic in ("plan", "head", "blocks", "roster"):
                witness.subscribe(f"{BASE}/{topic}")
                assert wait_for(witness, Received).payload == topic.encode()


@pytest.mark.parametrize(
    "topic_filter",
    [
        "#",
        "+/+/+",
        "$SYS/#",
        "$CONTROL/#",
        "$CONTROL/dynamic-security/v1/response",
        f"{BASE}/#",
        f"{BASE}/+",
        f"{BASE}/up/+",
        f"{BASE}/up/hospital-a",
        f"{BASE}/up/hospital-b",
        f"{BASE}/down/+",
        f"{BASE}/down/hospital-b",
        f"{BASE}/status/hospital-b",
        f"{BASE}/enrol/{INVITATION}",
        f"{BASE}/enrolled/{INVITATION}",
        "fmc1/retina/plan",
        "fmc1/+/plan",
        f"$share/all/{BASE}/up/+",
    ],
)
def test_a_site_may_not_listen_to_what_is_not_for_it(broker, topic_filter):
    with broker.open("hospital-a") as site:
        site.subscribe(topic_filter)
        assert wait_for(site, SubscriptionRefused).topic_filter == topic_filter


def test_a_last_will_reaches_no_further(broker):
    """The broker accepts the connection, and looks at the rules when the will is to be published."""
    topic = f"{BASE}/head"
    shown = broker.identity("hospital-a")
    with broker.open("aggregator") as aggregator:
        assert published(aggregator, topic, b"kept", retain=True)
        site = paho.Client(paho.CallbackAPIVersion.VERSION2, protocol=paho.MQTTv311)
        site.tls_set(shown["ca_file"], shown["certificate_file"], shown["key_file"])
        site.will_set(topic, b"", 1, retain=True)
        site.connect(broker.host, broker.port)
        until = time.monotonic() + 10
        while not site.is_connected() and time.monotonic() < until:
            site.loop(0.1)
        assert site.is_connected()
        site.socket().close()
        assert quiet(aggregator, Disconnected)
    with broker.open("hospital-b") as witness:
        witness.subscribe(topic)
        assert wait_for(witness, Received).payload == b"kept"


def test_an_invitation_is_good_for_two_topics(broker):
    with broker.open(f"enrol-{INVITATION}") as guest, broker.open("aggregator") as aggregator:
        aggregator.subscribe(f"{BASE}/enrol/+")
        assert published(aggregator, f"{BASE}/plan")  # and by then it is subscribed
        guest.subscribe(f"{BASE}/enrolled/{INVITATION}")
        assert published(guest, f"{BASE}/enrol/{INVITATION}", b"request")
        assert wait_for(aggregator, Received).payload == b"request"
        assert published(aggregator, f"{BASE}/enrolled/{INVITATION}", b"approval")
        assert wait_for(guest, Received).payload == b"approval"
        for topic in ("up/hospital-a", f"up/enrol-{INVITATION}", "enrol/fedcba9876543210"):
            assert not published(guest, f"{BASE}/{topic}")
        for topic in ("plan", "roster", "#", "enrol/+", "enrolled/+", f"enrol/{INVITATION}"):
            guest.subscribe(f"{BASE}/{topic}")
            assert wait_for(guest, SubscriptionRefused).topic_filter == f"{BASE}/{topic}"


def test_nobody_gets_in_without_a_certificate_of_the_federation_that_is_valid_now(broker, tmp_path):
    stranger = create_authority(tmp_path / "authority", FEDERATION, PASSPHRASE, now())
    known = broker.identity("hospital-a")
    nobody = {name: known[name] for name in ("tls", "ca_file")}
    expired = broker.identity("hospital-a", lifetime=timedelta(seconds=1), age=3600)
    for shown in (nobody, broker.identity("hospital-a", stranger), expired, {"tls": False}):
        with open_link(broker, **shown) as link:
            assert refused(link)
    with open_link(broker, **known) as link:
        wait_for(link, Connected)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
def test_old_versions_of_tls_are_not_spoken(broker):
    context = ssl.create_default_context(cafile=str(broker.home / "broker" / "ca.pem"))
    context.set_ciphers("DEFAULT@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    with (
        socket.create_connection((broker.host, broker.port), timeout=5) as connection,
        pytest.raises(ssl.SSLError),
    ):
        context.wrap_socket(connection, server_hostname=broker.host)


def test_a_member_comes_and_goes_while_the_others_stay_connected(broker):
    newcomer = "hospital-new"
    with managed(broker) as manager, broker.open("hospital-a") as bystander:
        wait_for(bystander, Connected)
        identity = broker.identity(newcomer)
        with open_link(broker, unique("new"), **identity) as early:
            # Before it is a member its certificate lets it in, and nothing more.
            early.subscribe(f"{BASE}/plan")
            wait_for(early, SubscriptionRefused)
        manager.settle(
            WantedAccess(MEMBERS.sites | {newcomer}, MEMBERS.enrolments),
        )
        with open_link(broker, unique("new"), **identity) as site:
            assert published(site, f"{BASE}/up/{newcomer}")
            manager.settle(MEMBERS)
            started = time.monotonic()
            ending = wait_for(site, Disconnected)
            assert time.monotonic() - started < 2.0
            assert "administrative action" in ending.reason
            wait_for(site, Connected)
            assert not published(site, f"{BASE}/up/{newcomer}")
            site.subscribe(f"{BASE}/plan")
            wait_for(site, SubscriptionRefused)
            revocations = revoke(broker.authority, newcomer, "left the study", now())
            assert install_revocation_list(broker.home / "broker", revocations)
        until = time.monotonic() + 10
        while "Reloading config" not in broker.log_file.read_text() and time.monotonic() < until:
            time.sleep(0.02)
        with open_link(broker, unique("new"), **identity) as site:
            assert refused(site)
        assert published(bystander, f"{BASE}/up/hospital-a")
        assert quiet(bystander, Disconnected)


def test_after_many_changes_new_connections_are_accepted(broker):
    """With memory_limit Mosquitto 2.0.11 accepts none after the third."""
    with managed(broker) as manager:
        for number in range(8):
            site = f"hospital-{number}"
            manager.settle(WantedAccess(MEMBERS.sites | {site}, MEMBERS.enrolments))
            with broker.open(site) as link:
                assert isinstance(link.next_event(10), Connected)
        manager.settle(MEMBERS)


def test_who_is_let_in_later_needs_no_new_connection(broker, monkeypatch):
    """An approval may reach a hospital before the aggregator was there to tell the broker."""
    monkeypatch.setattr(session, "REFUSED_SECONDS", 0.2)
    name = "hospital-late"
    with managed(broker) as manager, broker.open(name) as site:
        manager.settle(MEMBERS)
        site.subscribe(f"{BASE}/plan")
        for _ in range(2):
            wait_for(site, SubscriptionRefused)
        assert published(manager.link, f"{BASE}/plan", b"the plan", retain=True)
        manager.settle(WantedAccess(MEMBERS.sites | {name}, MEMBERS.enrolments))
        passed = []
        while not passed or not isinstance(passed[-1], Received):
            passed.append(site.next_event(10))
        assert passed[-1].payload == b"the plan"
        assert not any(isinstance(event, Disconnected) for event in passed)
        manager.settle(MEMBERS)


def test_what_waits_for_a_member_that_was_deleted_is_not_given_to_it(broker):
    name, site = "hospital-gone", unique("gone")
    with managed(broker) as manager:
        manager.settle(WantedAccess(MEMBERS.sites | {name}, MEMBERS.enrolments))
        identity = broker.identity(name)
        with open_link(broker, site, **identity) as link:
            link.subscribe(f"{BASE}/plan")
            assert published(link, f"{BASE}/up/{name}")  # and by then it is subscribed
            assert published(manager.link, f"{BASE}/plan", b"before")
            wait_for(link, Received, lambda event: event.payload == b"before").acknowledge()
        assert published(manager.link, f"{BASE}/plan", b"while it was away")
        manager.settle(MEMBERS)
        assert published(manager.link, f"{BASE}/plan", b"after")
        with open_link(broker, site, **identity) as link:
            wait_for(link, Connected)
            assert quiet(link, Received)


def test_the_first_rules_are_those_that_the_aggregator_wants(broker):
    with managed(broker) as manager:
        manager.settle(MEMBERS)
        assert all(b'"create' not in command and b'"modify' not in command for command in manager.commands)
