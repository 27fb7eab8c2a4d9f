"""What is wrong with a certificate is one line that says what to do, and ends nobody who could go on."""

import os
import re
import signal
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from fedmedclip.protocol.link.certificate_faults import own_dates_fault
from fedmedclip.protocol.link.link import Connected, Disconnected
from fedmedclip.protocol.link.probe import admits_without_certificate
from fedmedclip.simulation.processes.brokers import MosquittoBroker, free_port
from tests.protocol.link.helpers import open_link, settings_for, wait_for
from tests.protocol.link.test_transports import Certificate, make_certificate


def revocation_list(issuer: Certificate, *revoked: Certificate, seconds: int = 0) -> bytes:
    now = datetime.now(UTC) - timedelta(hours=1) + timedelta(seconds=seconds)
    builder = x509.CertificateRevocationListBuilder().issuer_name(issuer.certificate.subject)
    builder = builder.last_update(now).next_update(now + timedelta(days=30))
    for one in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(one.certificate.serial_number)
        builder = builder.add_revoked_certificate(entry.revocation_date(now).build())
    return builder.sign(issuer.key, hashes.SHA256()).public_bytes(Encoding.PEM)


class Home:
    """An authority, a broker of it that asks for certificates, and who has some."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.root = make_certificate(folder, "root", None)
        self.server = make_certificate(folder, "server", self.root)
        self.list_file = folder / "crl.pem"
        self.list_file.write_bytes(revocation_list(self.root))
        self.broker = MosquittoBroker(
            listener_settings=[
                f"cafile {self.root.certificate_file}",
                f"certfile {self.server.certificate_file}",
                f"keyfile {self.server.key_file}",
                f"crlfile {self.list_file}",
                "require_certificate true",
            ]
        )

    def shown(self, certificate: Certificate | None) -> dict[str, Any]:
        shown: dict[str, Any] = {"tls": True, "ca_file": self.root.certificate_file}
        if certificate is not None:
            shown |= {"certificate_file": certificate.certificate_file, "key_file": certificate.key_file}
        return shown


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, mosquitto_installed: None) -> Iterator[Home]:
    home = Home(tmp_path_factory.mktemp("home"))
    with home.broker:
        yield home


def test_a_certificate_for_another_host_name_says_which_it_has(home: Home) -> None:
    with open_link(home.broker, host="localhost", **home.shown(None)) as link:
        ending = wait_for(link, Disconnected)
    assert "is for 127.0.0.1, not for localhost; set broker.host" in ending.reason
    assert not ending.fatal


@pytest.mark.parametrize("days", [(-9, -2), (5, 9)])
def test_a_clock_that_is_wrong_is_said_with_both_times(
    tmp_path: Path, mosquitto_installed: None, days: tuple[int, int]
) -> None:
    root = make_certificate(tmp_path, "root", None, days_from_now=(-10, 30))
    server = make_certificate(tmp_path, "server", root, days_from_now=days)
    lines = [f"certfile {server.certificate_file}", f"keyfile {server.key_file}"]
    with (
        MosquittoBroker(listener_settings=lines) as broker,
        open_link(broker, tls=True, ca_file=root.certificate_file) as link,
    ):
        ending = wait_for(link, Disconnected)
    times = re.findall(r"(\d{4}-\d\d-\d\d \d\d:\d\d)", ending.reason)
    begins, ends, clock = (datetime.fromisoformat(f"{time}+00:00") for time in times)
    assert begins == server.certificate.not_valid_before_utc.replace(second=0)
    assert ends == server.certificate.not_valid_after_utc.replace(second=0)
    assert abs(clock - datetime.now(UTC)) < timedelta(minutes=2)
    assert not ending.fatal


def test_who_shows_none_is_told_what_to_set(home: Home) -> None:
    with open_link(home.broker, **home.shown(None)) as link:
        ending = wait_for(link, Disconnected, lambda event: event.fatal)
    assert "asks for a certificate, and none is configured" in ending.reason


def test_an_own_certificate_that_has_expired_is_tried_again(home: Home) -> None:
    old = make_certificate(home.folder, "old", home.root, days_from_now=(-9, -2))
    with open_link(home.broker, **home.shown(old)) as link:
        ending = wait_for(link, Disconnected, lambda event: "is valid from" in event.reason)
    assert str(old.certificate_file) in ending.reason
    assert not ending.fatal


def test_a_revoked_certificate_is_said_and_final_also_after_it_was_accepted(home: Home) -> None:
    site = make_certificate(home.folder, "site", home.root)
    with open_link(home.broker, **home.shown(site)) as link:
        wait_for(link, Connected)
        home.list_file.write_bytes(revocation_list(home.root, site, seconds=5))
        os.kill(home.broker.process_identifier, signal.SIGHUP)
    with open_link(home.broker, **home.shown(site)) as link:
        ending = wait_for(link, Disconnected, lambda event: event.fatal)
    assert "was revoked" in ending.reason


def test_another_authority_at_the_broker_is_waited_out_by_who_was_accepted(home: Home) -> None:
    """Somebody at the centre put the wrong certificate there: no site has to be started again for that."""
    site = make_certificate(home.folder, "patient", home.root)
    stranger = make_certificate(home.folder, "stranger", None)
    others = make_certificate(home.folder, "others", stranger)
    port = free_port()

    def broker(trusted: Certificate) -> MosquittoBroker:
        lines = [f"cafile {trusted.certificate_file}", f"certfile {home.server.certificate_file}"]
        lines += [f"keyfile {home.server.key_file}", "require_certificate true"]
        return MosquittoBroker(port, listener_settings=lines)

    right, wrong = broker(home.root), broker(others)
    with right, open_link(right, **home.shown(site)) as link:
        wait_for(link, Connected)
        right.stop()
        with wrong:
            ending = wait_for(link, Disconnected, lambda event: "refuses the certificate" in event.reason)
            assert not ending.fatal
        right.start()
        wait_for(link, Connected)


def test_an_alert_that_anyone_on_the_way_could_send_ends_nothing(home: Home) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            for _ in range(2):
                connection, _ = server.accept()
                with connection:
                    connection.recv(4096)
                    # A TLS record: alert, fatal, certificate_revoked (RFC 8446, section 6).
                    connection.sendall(bytes([21, 3, 3, 0, 2, 2, 44]))

        thread = threading.Thread(target=answer)
        thread.start()
        with open_link(home.broker, port=server.getsockname()[1], **home.shown(None)) as link:
            for _ in range(2):
                assert not wait_for(link, Disconnected).fatal
        thread.join()


def test_a_broker_that_lets_in_who_shows_no_certificate_is_found_out(home: Home) -> None:
    site = make_certificate(home.folder, "probing", home.root)
    assert admits_without_certificate(settings_for(home.broker, **home.shown(site))) is False
    lines = [f"cafile {home.root.certificate_file}", f"certfile {home.server.certificate_file}"]
    lines += [f"keyfile {home.server.key_file}"]
    with MosquittoBroker(listener_settings=lines) as careless:
        assert admits_without_certificate(settings_for(careless, **home.shown(site))) is True
    assert admits_without_certificate(settings_for(careless, **home.shown(site)), 0.5) is None


def test_own_certificates_are_judged_by_the_given_moment(home: Home) -> None:
    site = make_certificate(home.folder, "judged", home.root)
    settings = settings_for(home.broker, **home.shown(site))
    assert own_dates_fault(settings) is None
    fault = own_dates_fault(settings, datetime(1970, 1, 2, tzinfo=UTC))
    assert fault is not None
    assert "1970-01-02 00:00 UTC; check the date" in fault
