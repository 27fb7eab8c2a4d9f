"""The broker's configurations in a real Mosquitto, as the whole file and as a piece of one."""

import os
import re
import signal
import time
from contextlib import ExitStack

import pytest

from benchmarks.wire.broker_writes import settings_of, written_bytes
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.link.link import Connected, Disconnected, Received
from fedmedclip.simulation.processes.brokers import BrokerProcess, MosquittoBroker, find_mosquitto, free_port
from tests import ROOT
from tests.protocol.link.helpers import open_link, unique, wait_for, write_accounts
from tests.protocol.link.test_transports import make_certificate

DEPLOY = ROOT / "deploy"
CERTIFICATES, PASSWORDS = "mosquitto.conf", "mosquitto-passwords.conf"
NAMES = ["aggregator", "hospital-a", "hospital-b"]
# /etc/mosquitto/mosquitto.conf of Debian 12.
DEBIAN = """
pid_file /run/mosquitto/mosquitto.pid

persistence true
persistence_location /var/lib/mosquitto/

log_dest file /var/log/mosquitto/mosquitto.log

include_dir /etc/mosquitto/conf.d
"""


class DeployedBroker(BrokerProcess):
    """Mosquitto with a configuration of deploy/, on free ports of a machine that is a folder."""

    name = "deployed broker"

    def __init__(self, machine, variant, form):
        super().__init__()
        self.websocket_port = free_port()
        self.machine, self._variant, self._form = machine, variant, form
        etc = machine / "etc" / "mosquitto"
        for folder in ("var/lib/mosquitto", "var/log/mosquitto", "run/mosquitto"):
            (machine / folder).mkdir(parents=True)
        for folder in ("conf.d", "certs"):
            (etc / folder).mkdir(parents=True)
        (etc / "federation.acl").write_text((DEPLOY / "federation.acl").read_text())
        (etc / "federation.acl").chmod(0o600)
        certificates = etc / "certs"
        self.root = make_certificate(certificates, "ca", None)
        make_certificate(certificates, "broker", self.root)
        (certificates / "broker.key").rename(certificates / "broker-key.pem")
        write_accounts(machine, *NAMES).rename(etc / "passwords")

    def start(self):
        try:
            super().start()
        except InvalidInputError as error:
            # As a piece it says why in a file of its own.
            raise AssertionError(self.said()) from error

    def command(self, folder):
        etc = self.machine / "etc" / "mosquitto"
        # Started by root it would become the user mosquitto, who may not read a test's folder.
        text = self._here((DEPLOY / self._variant).read_text()) + ("user root\n" if os.geteuid() == 0 else "")
        if self._form == "whole":
            (etc / "mosquitto.conf").write_text(text)
        else:
            (etc / "mosquitto.conf").write_text(self._here(DEBIAN))
            (etc / "conf.d" / "fedmedclip.conf").write_text(text)
        return [find_mosquitto(), "-c", str(etc / "mosquitto.conf")]

    def _here(self, text):
        text = re.sub(r"/(?=(etc|var/lib|var/log|run)/mosquitto)", f"{self.machine}/", text)
        # Enough for a machine whose root is the root; a test's lies deeper.
        text = text.replace("../" * 8, "../" * 24)
        ports = {"8883": self.port, "443": self.websocket_port}
        return re.sub(r"(?m)^listener (\d+)$", lambda found: f"listener {ports[found[1]]} {self.host}", text)

    def said(self):
        """Return what was logged so far."""
        log = self.machine / "var" / "log" / "mosquitto" / "mosquitto.log"
        return self.log_file.read_text() + (log.read_text() if log.exists() else "")

    def identity(self, name):
        """Return how a member of that name shows who it is."""
        shown = {"tls": True, "ca_file": self.root.certificate_file}
        if self._variant == PASSWORDS:
            return shown | {"username": name, "password_file": str(self.machine / name)}
        found = make_certificate(self.machine, name, self.root)
        return shown | {"certificate_file": found.certificate_file, "key_file": found.key_file}


@pytest.fixture(params=[CERTIFICATES, PASSWORDS])
def variant(request):
    return request.param


@pytest.fixture(params=["whole", "piece"])
def deployed(request, variant, tmp_path, mosquitto_installed):
    with DeployedBroker(tmp_path / "machine", variant, request.param) as broker:
        yield broker


def test_members_get_through_others_do_not_and_nothing_is_warned_of(deployed):
    for transport, port in (("tcp", deployed.port), ("websockets", deployed.websocket_port)):
        way = {"transport": transport, "port": port}
        with (
            open_link(deployed, **way, **deployed.identity("aggregator")) as aggregator,
            open_link(deployed, **way, **deployed.identity("hospital-a")) as site,
        ):
            site.subscribe("fmc1/brain-mri/plan")
            wait_for(site, Connected)
            wait_for(aggregator, Connected)
            aggregator.publish("fmc1/brain-mri/plan", transport.encode(), retain=True)
            found = wait_for(site, Received, lambda event, sent=transport: event.payload == sent.encode())
            found.acknowledge()
    os.kill(deployed.process_identifier, signal.SIGHUP)
    said = until_said(deployed, "Reloading config")
    noticed = [line for line in said.splitlines() if re.search(r"Warning|Error|deprecated", line)]
    # The test may be root's, and its first connection only looks whether there is a broker.
    ours = re.compile("should not be run as root|unexpected eof while reading")
    assert [line for line in noticed if not ours.search(line)] == []
    # Who shows nothing, or what somebody else has signed, is refused for good.
    stranger = make_certificate(deployed.machine, "stranger", None)
    nobody = {"tls": True, "ca_file": deployed.root.certificate_file}
    forged = make_certificate(deployed.machine, "forged", stranger)
    (deployed.machine / "wrong").write_text("wrong")
    for shown in (
        nobody,
        nobody | {"certificate_file": forged.certificate_file, "key_file": forged.key_file},
        nobody | {"username": "hospital-a", "password_file": str(deployed.machine / "wrong")},
    ):
        with open_link(deployed, **shown) as link:
            assert wait_for(link, Disconnected, lambda event: event.fatal).reason
    deployed.stop()
    assert (deployed.machine / "var/lib/mosquitto/mosquitto.db").stat().st_size > 100


def until_said(broker, words):
    until = time.monotonic() + 10
    while words not in broker.said() and time.monotonic() < until:
        time.sleep(0.05)
    assert words in broker.said()
    return broker.said()


def test_the_variants_differ_only_in_how_members_show_who_they_are():
    ways = {"cafile", "require_certificate", "use_identity_as_username", "password_file"}
    lines = {
        variant: [
            line
            for line in (DEPLOY / variant).read_text().splitlines()
            if line and line[0] != "#" and line.split()[0] not in ways
        ]
        for variant in (CERTIFICATES, PASSWORDS)
    }
    assert lines[CERTIFICATES] == lines[PASSWORDS]
    assert {"cafile", "require_certificate"} & set((DEPLOY / PASSWORDS).read_text().split()) == set()


def test_many_messages_wait_for_a_party_that_is_away(mosquitto_installed):
    """More than the default's 1000, which drops the others without a word: the limits are in bytes."""
    with MosquittoBroker(settings=settings_of(DEPLOY / CERTIFICATES)) as broker:
        name, topic = unique("away"), unique("many")
        with open_link(broker, name) as away:
            away.subscribe(topic)
            away.publish(topic, b"subscribed")
            wait_for(away, Received).acknowledge()
        with open_link(broker) as sender:
            for _ in range(1100):
                sender.publish(topic, b"waiting")
            while sender.unfinished:
                sender.next_event(0.1)
        with open_link(broker, name) as back:
            for _ in range(1100):
                wait_for(back, Received).acknowledge()


@pytest.mark.slow
def test_the_access_rules_keep_sites_out_of_each_others_topics(tmp_path, mosquitto_installed):
    passwords = write_accounts(tmp_path, "aggregator", "hospital-a", "hospital-b")
    rules = [f"acl_file {DEPLOY / 'federation.acl'}", f"password_file {passwords}"]
    with MosquittoBroker(allow_anonymous=False, settings=rules) as broker, ExitStack() as opened:

        def open_as(user):
            link = open_link(broker, unique(user), username=user, password_file=str(tmp_path / user))
            opened.enter_context(link)
            for topic in ("plan", "head", "blocks", "up/+", "down/+", "status/+"):
                link.subscribe(f"fmc1/brain-mri/{topic}")
            wait_for(link, Connected)
            assert everything_received(link) == set()  # and by then it is subscribed
            return link

        links = {user: open_as(user) for user in ("aggregator", "hospital-a", "hospital-b")}
        topics = ["plan", "head", "blocks", "up/hospital-a", "down/hospital-a", "status/hospital-a"]
        for user, link in links.items():
            for topic in topics:
                link.publish(f"fmc1/brain-mri/{topic}", user.encode())
        seen = {user: everything_received(link) for user, link in links.items()}
    from_hospital_a = {("up/hospital-a", "hospital-a"), ("status/hospital-a", "hospital-a")}
    from_aggregator = {(topic, "aggregator") for topic in topics}
    assert seen["aggregator"] == from_aggregator | from_hospital_a
    for_all = {(topic, "aggregator") for topic in ("plan", "head", "blocks")}
    assert seen["hospital-a"] == for_all | {("down/hospital-a", "aggregator")}
    assert seen["hospital-b"] == for_all


def test_a_burst_of_messages_is_not_written_again_with_each_of_them(mosquitto_installed):
    """Counted by the kernel: the broker's own database of all that waits for a party that is away."""
    with MosquittoBroker(settings=settings_of(DEPLOY / "mosquitto.conf")) as broker:
        name, topic = unique("away"), unique("burst")
        with open_link(broker, name) as away:
            away.subscribe(topic)
            away.publish(topic, b"subscribed")
            wait_for(away, Received).acknowledge()
        with open_link(broker) as sender:
            for _ in range(40):
                sender.publish(topic, bytes(100_000))
            while sender.unfinished:
                sender.next_event(0.1)
        assert written_bytes(broker.process_identifier) < 2 * 40 * 100_000


def everything_received(link):
    """Return (topic below the federation, sender) of all messages until nothing comes for a second."""
    seen = set()
    while (event := link.next_event(1.0)) is not None:
        if isinstance(event, Received):
            seen.add((event.topic.removeprefix("fmc1/brain-mri/"), event.payload.decode()))
            event.acknowledge()
    return seen
