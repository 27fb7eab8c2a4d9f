"""A certificate is renewed months before it ends, by the key that was made for it on the box."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from fedmedclip.aggregator.authority.certificate_authority import (
    Authority,
    create_authority,
    issue_client_certificate,
)
from fedmedclip.edge_client.site.credentials import Credentials
from fedmedclip.edge_client.site.renewal import Renewing
from fedmedclip.protocol.errors import MessageError
from fedmedclip.protocol.messages import Renewal

START = datetime.now(UTC)
LIFE = timedelta(days=397)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    authority = create_authority(tmp_path / "authority", "brain-mri", "a long passphrase", START)
    (tmp_path / "ca.pem").write_bytes(authority.certificate_pem)
    return authority


def issued(authority: Authority, request: bytes, site: str = "hospital-a", now: datetime = START) -> bytes:
    pem = x509.load_der_x509_csr(request).public_bytes(Encoding.PEM)
    certificate = issue_client_certificate(authority, site, pem, now, LIFE)
    return x509.load_pem_x509_certificate(certificate).public_bytes(Encoding.DER)


@pytest.fixture
def credentials(tmp_path: Path, authority: Authority) -> Credentials:
    credentials = Credentials(tmp_path)
    first = issued(authority, credentials.ask("hospital-a"))
    credentials.install(first, "hospital-a", authority.certificate)
    return credentials


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def renewing(tmp_path: Path, credentials: Credentials, clock: Clock) -> Renewing:
    return Renewing(credentials, tmp_path / "ca.pem", "hospital-a", clock)


def test_it_asks_when_two_thirds_of_the_life_are_over_and_not_before(
    renewing: Renewing, clock: Clock
) -> None:
    assert renewing.due(0.0) == []
    clock.now = START + 0.6 * LIFE
    assert renewing.due(30_000.0) == []
    clock.now = START + 0.7 * LIFE
    assert len(renewing.due(60_000.0)) == 1
    assert renewing.due(60_001.0) == []
    assert len(renewing.due(90_000.0)) == 1


def test_the_new_certificate_replaces_key_and_certificate_at_once(
    renewing: Renewing, clock: Clock, credentials: Credentials, authority: Authority
) -> None:
    before = credentials.path.read_bytes()
    clock.now = START + 0.7 * LIFE
    (request,) = renewing.due(0.0)
    assert credentials.path.read_bytes() == before, "what works stays until the new one is here"

    renewed = issued(authority, request.certificate_request, now=START + timedelta(days=1))
    renewing.take(Renewal(renewed))
    renewing.take(Renewal(renewed))

    assert credentials.certificate().public_bytes(Encoding.DER) == renewed
    assert credentials.path.read_bytes() != before


def test_a_certificate_for_anybody_else_is_refused(
    renewing: Renewing, clock: Clock, credentials: Credentials, authority: Authority, tmp_path: Path
) -> None:
    clock.now = START + 0.7 * LIFE
    (request,) = renewing.due(0.0)
    before = credentials.path.read_bytes()
    other = Credentials(tmp_path / "other")
    other.folder.mkdir()
    stranger = create_authority(tmp_path / "stranger", "brain-mri", "a long passphrase", START)
    another = Credentials(tmp_path / "another")
    another.folder.mkdir()
    refused = [
        issued(authority, other.ask("hospital-a")),
        issued(authority, another.ask("hospital-b"), "hospital-b"),
        issued(stranger, request.certificate_request),
        b"no certificate",
    ]
    for certificate in refused:
        with pytest.raises(MessageError):
            renewing.take(Renewal(certificate))
    assert credentials.path.read_bytes() == before
