"""A founded federation that runs: Mosquitto with its files, the aggregator as a process, sites' links."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedmedclip.aggregator.authority.broker_files import BrokerPlace
from fedmedclip.aggregator.enrolment.folder import FederationFolder
from fedmedclip.protocol import topics
from fedmedclip.protocol.certificates import private_pem
from fedmedclip.protocol.enrolment.enrolment_topics import CERTIFICATE_PREFIX
from fedmedclip.protocol.enrolment.invitation import Invitation
from fedmedclip.protocol.enrolment.token import enrolment_key
from fedmedclip.protocol.envelope import open_envelope, seal
from fedmedclip.protocol.link.link import Event, Link, Received
from fedmedclip.protocol.messages import Join, JoinAnswer, Message, Plan
from fedmedclip.simulation.processes.brokers import BrokerProcess, find_mosquitto
from tests.aggregator.enrolment.centre import FEDERATION, Hospital, found
from tests.protocol.link.helpers import open_link, unique
from tests.protocol.moments import a_moment

PATIENCE = 20.0


class FoundedBroker(BrokerProcess):
    """The broker of a federation's folder."""

    name = "broker of a federation"

    def __init__(self, home: Path) -> None:
        super().__init__()
        self.federation: FederationFolder = found(home, self.port, BrokerPlace())

    def command(self, folder: Path) -> list[str]:
        return [find_mosquitto(), "-c", str(self.federation.broker / "mosquitto.conf")]


@contextmanager
def aggregator_of(folder: FederationFolder) -> Iterator[Path]:
    """Run the aggregator of a folder; give its log."""
    log = folder.path / "aggregator.log"
    command = [sys.executable, "-m", "fedmedclip", "aggregator", "--config", str(folder.configuration_file)]
    with log.open("ab") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            until = time.monotonic() + PATIENCE
            while "connected to the broker" not in log.read_text():
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < until, log.read_text()
                time.sleep(0.05)
            yield log
        finally:
            process.terminate()
            process.wait(PATIENCE)


def identity(folder: FederationFolder, name: str, certificate: bytes, key: bytes) -> dict[str, object]:
    """Return the settings of a link that shows this certificate, in PEM."""
    files = folder.path.parent / unique(name)
    files.with_suffix(".pem").write_bytes(certificate)
    files.with_suffix(".key").write_bytes(key)
    return {
        "tls": True,
        "ca_file": str(folder.authority / "ca.pem"),
        "certificate_file": str(files.with_suffix(".pem")),
        "key_file": str(files.with_suffix(".key")),
    }


def knocking(broker: FoundedBroker, invitation: Invitation) -> Link:
    """Return the link of who holds an invitation."""
    name = f"{CERTIFICATE_PREFIX}{invitation.number}"
    key = private_pem(enrolment_key(bytes.fromhex(invitation.token)))
    shown = identity(broker.federation, name, invitation.certificate.encode(), key)
    return open_link(broker, unique(name), **shown)


class Site:
    """A member's link, with what it needs to speak to the aggregator."""

    def __init__(self, broker: FoundedBroker, hospital: Hospital, certificate: bytes) -> None:
        self.hospital = hospital
        self.shown = identity(broker.federation, hospital.name, certificate, hospital.tls_key)
        self.broker = broker
        self.link = self.another_link()
        self.passed: list[Event] = []
        self.messages: list[Message] = []
        self.plan: Plan | None = None
        for topic in (topics.plan(FEDERATION), topics.roster(FEDERATION)):
            self.link.subscribe(topic)
        self.link.subscribe(topics.down(FEDERATION, hospital.name))

    def another_link(self) -> Link:
        """Return a further link with the same certificate."""
        return open_link(self.broker, unique(self.hospital.name), **self.shown)

    def send(self, message: Message) -> None:
        """Publish a message to the aggregator."""
        assert self.plan is not None
        topic = topics.up(FEDERATION, self.hospital.name)
        self.link.publish(topic, seal(message, topic, self.hospital.key, self.plan.identity))

    def next(self, kind: type[Message], matches=lambda message: True):
        """Return the next message of a kind, whoever signed it; others are kept, and events in `passed`."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            for message in self.messages:
                if isinstance(message, kind) and matches(message):
                    self.messages.remove(message)
                    return message
            event = self.link.next_event(0.2)
            if isinstance(event, Received) and event.payload:
                event.acknowledge()
                self.messages.append(open_envelope(event.payload, event.topic).message)
            elif event is not None:
                self.passed.append(event)
        raise AssertionError(f"no {kind.__name__} for {self.hospital.name}, but {self.messages, self.passed}")

    def join(self) -> JoinAnswer:
        """Follow the plan, and ask to take part."""
        self.plan = self.next(Plan)
        digest = self.plan.bundle_digest
        self.send(Join(self.hospital.key.public_key, digest, 120, -1, "0.2.0", "", a_moment(), 1))
        return self.next(JoinAnswer)


def clients_of(folder: FederationFolder) -> str:
    """Return what the broker's plugin keeps of its clients, as text."""
    return (folder.broker / "dynamic-security.json").read_text()


def eventually(holds, seconds: float = PATIENCE) -> None:
    """Return when something holds."""
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.05)
