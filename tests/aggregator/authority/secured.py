"""A real Mosquitto as `write_broker_folder` makes it, and the links of its federation's parties."""

import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from fedmedclip.aggregator.authority.access_rules import RESPONSE_TOPIC, WantedAccess
from fedmedclip.aggregator.authority.broker_access import CONTROL_TOPIC, BrokerAccess
from fedmedclip.aggregator.authority.broker_files import BrokerPlace, write_broker_folder
from fedmedclip.aggregator.authority.certificate_authority import (
    Authority,
    create_authority,
    issue_client_certificate,
)
from fedmedclip.protocol.certificates import certificate_request, new_tls_key
from fedmedclip.protocol.link.link import Connected, Disconnected, Link, Published, Received
from fedmedclip.protocol.new_files import write_new_file
from fedmedclip.simulation.processes.brokers import BrokerProcess, find_mosquitto
from tests.protocol.link.helpers import open_link

FEDERATION = "brain-mri"
PASSPHRASE = "correct horse battery staple"
PATIENCE = 20.0


class SecuredBroker(BrokerProcess):
    """Mosquitto in `home`/broker, with the authority in `home`/authority."""

    name = "secured broker"

    def __init__(self, home: Path, wanted: WantedAccess, *, hosts: tuple[str, ...] = ("127.0.0.1",)) -> None:
        super().__init__()
        self.home = home
        self.authority: Authority = create_authority(home / "authority", FEDERATION, PASSPHRASE, now())
        place = BrokerPlace(port=self.port)
        write_broker_folder(
            home / "broker", self.authority, FEDERATION, hosts, now(), place=place, wanted=wanted
        )

    def command(self, folder: Path) -> list[str]:
        return [find_mosquitto(), "-c", str(self.home / "broker" / "mosquitto.conf")]

    def identity(
        self,
        name: str,
        authority: Authority | None = None,
        lifetime: timedelta = timedelta(days=1),
        age: float = 0,
    ) -> dict[str, object]:
        """Return the link's settings of who has a certificate of that name, issued `age` seconds ago."""
        key = new_tls_key()
        issued = issue_client_certificate(
            authority or self.authority,
            name,
            certificate_request(key, name),
            now() - timedelta(seconds=age),
            lifetime,
        )
        files = self.home / f"{name}-{time.monotonic_ns()}"
        files.with_suffix(".pem").write_bytes(issued)
        write_new_file(files.with_suffix(".key"), key, private=True)
        return {
            "tls": True,
            "ca_file": str(self.home / "broker" / "ca.pem"),
            "certificate_file": str(files.with_suffix(".pem")),
            "key_file": str(files.with_suffix(".key")),
            # Mosquitto ends the connection after a refused message where max_queued_messages is 0.
            "first_retry_seconds": 0.02,
            "longest_retry_seconds": 0.04,
        }

    def open(self, name: str, **changes: object) -> Link:
        """Return a link of who has that name."""
        return open_link(self, **(self.identity(name) | changes))


def refused(link: Link) -> bool:
    """Whether the first that happens to a link is that it does not get in."""
    return isinstance(link.next_event(PATIENCE), Disconnected)


class Manager:
    """What the aggregator's service does with the state machine, over a link of its own."""

    def __init__(self, broker: SecuredBroker) -> None:
        self.link = broker.open("aggregator")
        self.access = BrokerAccess(FEDERATION)
        self.commands: list[bytes] = []
        self.link.subscribe(RESPONSE_TOPIC)

    def settle(self, wanted: WantedAccess) -> None:
        """Return when the broker has exactly these."""
        self._publish(self.access.want(wanted, time.monotonic()))
        until = time.monotonic() + PATIENCE
        while self.access.applied != wanted:
            assert time.monotonic() < until
            event = self.link.next_event(0.2)
            if isinstance(event, Connected):
                self._publish(self.access.connected(event.largest_payload, time.monotonic()))
            elif isinstance(event, Received):
                event.acknowledge()
                if event.topic == RESPONSE_TOPIC:
                    self._publish(self.access.answered(event.payload, time.monotonic()))
            self._publish(self.access.tick(time.monotonic()))

    def _publish(self, payloads: list[bytes]) -> None:
        self.commands += payloads
        for payload in payloads:
            self.link.publish(CONTROL_TOPIC, payload)


@contextmanager
def managed(broker: SecuredBroker):
    """Give a manager that is connected, and knows what the broker has."""
    manager = Manager(broker)
    with manager.link:
        yield manager


def now() -> datetime:
    return datetime.now(UTC)


def published(link: Link, topic: str, payload: bytes = b"x", *, retain: bool = False) -> bool:
    """Whether the broker takes a message."""
    token = link.publish(topic, payload, retain=retain)
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        event = link.next_event(0.5)
        if getattr(event, "token", None) == token:
            return isinstance(event, Published)
        if isinstance(event, Received):
            event.acknowledge()
    raise AssertionError(f"no answer to a message on {topic}")
