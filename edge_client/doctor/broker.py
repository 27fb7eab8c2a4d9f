"""The way to the broker, with the site's own settings: TCP, TLS and its dates, MQTT."""

import ssl
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
from cryptography import x509

from fedmedclip.edge_client.doctor.finding import Finding, bad, good, note
from fedmedclip.edge_client.doctor.rehearsal import rehearse
from fedmedclip.protocol.errors import FedMedClipError
from fedmedclip.protocol.link.connection import open_network
from fedmedclip.protocol.link.probe import admits_without_certificate
from fedmedclip.protocol.link.reasons import connect_failure
from fedmedclip.protocol.link.settings import LinkSettings, tls_context

_SECONDS = 10.0
_SOON = timedelta(days=30)


def reach(settings: LinkSettings, federation: str, site: str, *, running: bool) -> list[Finding]:
    """Try each layer in turn; the first that fails ends it. `running`: the site's process holds its state."""
    findings = [*own_certificates(settings)]
    started = time.perf_counter()
    try:
        with open_network(settings, _SECONDS) as connection:
            milliseconds = (time.perf_counter() - started) * 1000
            findings.append(good("network", f"{settings.address} answers in {milliseconds:.0f} ms"))
            context = tls_context(settings)
            if context is not None:
                with context.wrap_socket(connection, server_hostname=settings.host) as secured:
                    findings.append(_server_certificate(secured, settings))
    except OSError as error:
        name = "TLS" if isinstance(error, ssl.SSLError) else "network"
        advice = "check [broker], the firewall, and whether the broker runs"
        return [*findings, bad(name, connect_failure(error, settings).reason, advice)]
    findings += asks_for_certificates(settings)
    if not settings.tls:
        findings.append(note("TLS", "off: what is sent can be read on the way", "set broker.tls = true"))
    if running and settings.client_id is not None:
        words = (
            f"not tried: the site runs, and {settings.client_id!r} (broker.client_id) can connect but once"
        )
        return [*findings, note("MQTT", words, "stop the site, and look again")]
    return [*findings, *rehearse(settings, federation, site)]


def asks_for_certificates(settings: LinkSettings) -> list[Finding]:
    """Judge a broker that lets in clients without certificate, where this one has one."""
    if settings.certificate_file is None or not admits_without_certificate(settings):
        return []
    words = "the broker lets in clients that show no certificate"
    return [bad("certificates", words, "tell who runs it; Mosquitto: require_certificate true")]


def own_certificates(settings: LinkSettings) -> list[Finding]:
    """Judge the dates of the certificates that the site itself has: its own, and those that it trusts."""
    named = {"own certificate": settings.certificate_file, "trusted CA": settings.ca_file}
    return [
        _dates(name, certificate)
        for name, path in named.items()
        if path is not None
        for certificate in _certificates(Path(path))
    ]


def _server_certificate(secured: ssl.SSLSocket, settings: LinkSettings) -> Finding:
    encoded = secured.getpeercert(binary_form=True)
    if encoded is None:
        return note("TLS", f"{secured.version()}; the broker shows no certificate")
    found = _dates("TLS", x509.load_der_x509_certificate(encoded))
    return msgspec.structs.replace(found, words=f"{secured.version()} with {settings.host}; {found.words}")


def _certificates(path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except (OSError, ValueError) as error:
        raise FedMedClipError(f"{path} holds no readable PEM certificate ({error})") from error


def _dates(name: str, certificate: x509.Certificate) -> Finding:
    now = datetime.now(UTC)
    first, last = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    subject = certificate.subject.rfc4514_string() or "without a name"
    words = f"certificate {subject}, valid from {first:%Y-%m-%d} to {last:%Y-%m-%d}"
    if now < first:
        return bad(name, words, "it is not valid yet: set this machine's date, or wait")
    if now > last:
        return bad(name, words, "it has expired: get a new one, or set this machine's date")
    if now + _SOON > last:
        return note(name, words, "renew it soon")
    return good(name, words)
