"""The MQTT link over WebSockets, TLS and an HTTP proxy, with passwords and certificates."""

import datetime
import ipaddress
import select
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from fedmedclip.protocol.link.link import Connected, Disconnected, Link, Received
from fedmedclip.protocol.new_files import write_new_file
from fedmedclip.simulation.processes.brokers import MosquittoBroker, free_port
from tests.protocol.link.helpers import open_link, unique, wait_for


def exchange(link: Link) -> None:
    """Assert that a message of several network packets goes round."""
    topic, payload = unique("exchange"), bytes(range(256)) * 60
    wait_for(link, Connected)
    link.subscribe(topic)
    link.publish(topic, payload)
    received = wait_for(link, Received)
    received.acknowledge()
    assert received.payload == payload


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_websockets(mosquitto: MosquittoBroker, protocol: str) -> None:
    settings = {"port": mosquitto.websocket_port, "transport": "websockets", "protocol": protocol}
    with open_link(mosquitto, **settings) as link:
        exchange(link)


@dataclass(frozen=True)
class Certificate:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    certificate_file: str
    key_file: str


def make_certificate(
    folder: Path, name: str, issuer: Certificate | None, *, days_from_now: tuple[int, int] = (-1, 30)
) -> Certificate:
    """Make a certificate for 127.0.0.1 (a CA when without issuer) and write both PEM files."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + datetime.timedelta(days=days_from_now[0]))
        .not_valid_after(now + datetime.timedelta(days=days_from_now[1]))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .sign(issuer.key if issuer else key, hashes.SHA256())
    )
    certificate_file, key_file = folder / f"{name}.pem", folder / f"{name}.key"
    certificate_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return Certificate(certificate, key, str(certificate_file), str(key_file))


@dataclass(frozen=True)
class Authority:
    folder: Path
    root: Certificate
    site: Certificate
    stranger: Certificate
    strangers_site: Certificate

    def listener(self, server: Certificate) -> list[str]:
        return [
            f"cafile {self.root.certificate_file}",
            f"certfile {server.certificate_file}",
            f"keyfile {server.key_file}",
        ]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    folder = tmp_path_factory.mktemp("certificates")
    root = make_certificate(folder, "root", None)
    stranger = make_certificate(folder, "stranger", None)
    site = make_certificate(folder, "site", root)
    return Authority(folder, root, site, stranger, make_certificate(folder, "strangers-site", stranger))


@pytest.fixture(scope="module")
def tls_broker(authority: Authority, mosquitto_installed: None) -> Iterator[MosquittoBroker]:
    """Requires a client certificate."""
    server = make_certificate(authority.folder, "server", authority.root)
    lines = [*authority.listener(server), "require_certificate true"]
    with MosquittoBroker(listener_settings=lines) as broker:
        yield broker


def test_tls_with_client_certificate(tls_broker: MosquittoBroker, authority: Authority) -> None:
    files = {"certificate_file": authority.site.certificate_file, "key_file": authority.site.key_file}
    with open_link(tls_broker, tls=True, ca_file=authority.root.certificate_file, **files) as link:
        exchange(link)


def test_a_broker_of_another_authority_is_tried_again(
    tls_broker: MosquittoBroker, authority: Authority
) -> None:
    """It may be a guest network's server, which goes away when somebody signs in."""
    with open_link(tls_broker, tls=True, ca_file=authority.stranger.certificate_file) as link:
        ending = wait_for(link, Disconnected)
    assert not ending.fatal
    assert "CN=root" in ending.reason
    assert "check broker.ca_file" in ending.reason


@pytest.mark.parametrize("own", ["none", "stranger"])
def test_a_client_certificate_that_the_broker_refuses_is_fatal(
    tls_broker: MosquittoBroker, authority: Authority, own: str
) -> None:
    site = authority.strangers_site
    files = {} if own == "none" else {"certificate_file": site.certificate_file, "key_file": site.key_file}
    with open_link(tls_broker, tls=True, ca_file=authority.root.certificate_file, **files) as link:
        # A busy machine may see the connection end before the broker's reason: then the next attempt tells.
        ending = wait_for(link, Disconnected, lambda event: event.fatal)
    assert "broker.certificate_file" in ending.reason


def test_a_certificate_that_was_renewed_is_shown_at_the_next_connection(
    authority: Authority, mosquitto_installed: None, tmp_path: Path
) -> None:
    """Key and certificate lie in one file, so that both change at once."""

    def install(certificate: Certificate) -> None:
        parts = [Path(certificate.key_file).read_bytes(), Path(certificate.certificate_file).read_bytes()]
        write_new_file(tmp_path / "tls.pem", b"".join(parts), private=True)

    server = make_certificate(authority.folder, "server-2", authority.root)
    renewed = make_certificate(authority.folder, "renewed", authority.root)
    lines = [*authority.listener(server), "require_certificate true", "use_identity_as_username true"]
    own = str(tmp_path / "tls.pem")
    install(authority.site)
    with MosquittoBroker(listener_settings=lines, settings=["log_type notice"]) as broker:
        files = {"ca_file": authority.root.certificate_file, "certificate_file": own, "key_file": own}
        with open_link(broker, tls=True, **files) as link:
            exchange(link)
            install(renewed)
            broker.kill()
            wait_for(link, Disconnected)
            broker.start()
            exchange(link)
            assert "u'renewed'" in broker.log_file.read_text()


def test_a_certificate_of_the_future_can_heal(authority: Authority, mosquitto_installed: None) -> None:
    """The clock of a small machine may be wrong until it has reached a time server."""
    server = make_certificate(authority.folder, "future", authority.root, days_from_now=(5, 30))
    with (
        MosquittoBroker(listener_settings=authority.listener(server)) as broker,
        open_link(broker, tls=True, ca_file=authority.root.certificate_file) as link,
    ):
        ending = wait_for(link, Disconnected)
    assert not ending.fatal
    assert "date of this machine" in ending.reason


def test_tls_on_a_port_without_it_is_said(mosquitto: MosquittoBroker) -> None:
    with open_link(mosquitto, tls=True) as link:
        ending = wait_for(link, Disconnected)
    assert f"127.0.0.1:{mosquitto.port}" in ending.reason


@pytest.mark.parametrize("protocol", ["auto", "3.1.1"])
def test_passwords(mosquitto_installed: None, tmp_path: Path, protocol: str) -> None:
    tool = shutil.which("mosquitto_passwd")
    if tool is None:
        pytest.skip("mosquitto_passwd is not installed")
    accounts, right, wrong = tmp_path / "accounts", tmp_path / "right", tmp_path / "wrong"
    right.write_text("opensesame\n")
    wrong.write_text("guess\n")
    subprocess.run([tool, "-b", "-c", str(accounts), "site", "opensesame"], check=True)
    with MosquittoBroker(allow_anonymous=False, settings=[f"password_file {accounts}"]) as broker:
        account = {"username": "site", "protocol": protocol}
        with open_link(broker, password_file=str(right), **account) as link:
            exchange(link)
        for attempt in ({"password_file": str(wrong), **account}, {"protocol": protocol}):
            with open_link(broker, **attempt) as link:
                ending = wait_for(link, Disconnected)
            assert ending.fatal
            assert "not authorized" in ending.reason or "bad user name or password" in ending.reason


class Proxy:
    """An HTTP proxy that knows only CONNECT, for one client at a time."""

    def __init__(
        self,
        answer: bytes = b"HTTP/1.1 200 Connection established\r\nVia: test\r\n\r\n",
        delay_seconds: float = 0.0,
    ) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self._answer = answer
        self._delay_seconds = delay_seconds
        self.requests: list[str] = []
        self.address = f"127.0.0.1:{self._server.getsockname()[1]}"
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join(10.0)

    def _run(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._server.accept()
                with client, suppress(OSError):
                    self._serve(client)

    def _serve(self, client: socket.socket) -> None:
        request = client.recv(4096).decode()
        self.requests.append(request.splitlines()[0])
        time.sleep(self._delay_seconds)
        client.sendall(self._answer)
        if b" 200 " not in self._answer:
            return
        host, _, port = request.split()[1].rpartition(":")
        with socket.create_connection((host, int(port))) as target:
            other = {client: target, target: client}
            while True:
                for side in select.select(list(other), [], [])[0]:
                    data = side.recv(65536)
                    if not data:
                        return
                    other[side].sendall(data)


@pytest.mark.parametrize("transport", ["tcp", "websockets"])
def test_through_an_http_proxy(mosquitto: MosquittoBroker, transport: str) -> None:
    port = mosquitto.websocket_port if transport == "websockets" else mosquitto.port
    proxy = Proxy()
    with open_link(mosquitto, port=port, transport=transport, proxy=proxy.address) as link:
        exchange(link)
    proxy.close()
    assert proxy.requests == [f"CONNECT 127.0.0.1:{port} HTTP/1.1"]


def test_tls_through_an_http_proxy(tls_broker: MosquittoBroker, authority: Authority) -> None:
    proxy = Proxy()
    files = {"certificate_file": authority.site.certificate_file, "key_file": authority.site.key_file}
    ca_file = authority.root.certificate_file
    with open_link(tls_broker, proxy=proxy.address, tls=True, ca_file=ca_file, **files) as link:
        exchange(link)
    proxy.close()


def test_a_proxy_that_refuses_or_is_absent_is_said(mosquitto: MosquittoBroker) -> None:
    proxy = Proxy(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
    with open_link(mosquitto, proxy=proxy.address) as link:
        assert "407" in wait_for(link, Disconnected).reason
    proxy.close()
    absent = f"127.0.0.1:{free_port()}"
    with open_link(mosquitto, proxy=absent) as link:
        assert f"http proxy {absent} cannot be reached" in wait_for(link, Disconnected).reason.lower()
