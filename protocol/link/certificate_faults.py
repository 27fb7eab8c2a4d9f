"""What is wrong with a certificate, the broker's or this machine's own, in words that say what to do."""

import ssl
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from fedmedclip.protocol.certificates import (
    host_names,
    minutes,
    read_certificate_file,
    validity_in_words,
)
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.link.connection import NETWORK_SECONDS, open_network
from fedmedclip.protocol.link.settings import LinkSettings
from fedmedclip.protocol.visible import visible

# OpenSSL: X509_V_ERR_CERT_NOT_YET_VALID and X509_V_ERR_CERT_HAS_EXPIRED; X509_V_ERR_HOSTNAME_MISMATCH and
# X509_V_ERR_IP_ADDRESS_MISMATCH; ..._DEPTH_ZERO_SELF_SIGNED_CERT, ..._SELF_SIGNED_CERT_IN_CHAIN,
# ..._UNABLE_TO_GET_ISSUER_CERT_LOCALLY, ..._UNABLE_TO_VERIFY_LEAF_SIGNATURE, and of a CA of the same name
# X509_V_ERR_CERT_SIGNATURE_FAILURE.
_DATE_ERRORS = {9, 10}
_NAME_ERRORS = {62, 64}
_AUTHORITY_ERRORS = {7, 18, 19, 20, 21}
_MOST_NAMES = 8


def server_certificate_fault(
    error: ssl.SSLCertVerificationError, settings: LinkSettings, now: datetime | None = None
) -> str:
    """Say why the broker's certificate is not accepted; for its dates and names it is looked at once more."""
    shown = _shown_certificate(settings)
    whose = f"the certificate of {settings.address}"
    if error.verify_code in _DATE_ERRORS and shown is not None:
        return (
            f"{whose} is valid from {validity_in_words(shown)}, and the clock of this machine says "
            f"{minutes(now or datetime.now(UTC))} UTC; check the date of this machine, else the broker needs "
            "a new certificate"
        )
    if error.verify_code in _NAME_ERRORS and shown is not None:
        names = [visible(name) for name in host_names(shown)[:_MOST_NAMES]]
        return (
            f"{whose} is for {', '.join(names) or 'no host name'}, not for {settings.host}; set broker.host "
            "to a name that it has, or ask for a certificate with this one"
        )
    if error.verify_code in _AUTHORITY_ERRORS:
        issuer = "" if shown is None else f", {visible(shown.issuer.rfc4514_string()[:200])},"
        trusted = settings.ca_file or "what this system trusts"
        return (
            f"the authority that signed the certificate of {settings.address}{issuer} is not in {trusted} "
            f"({error.verify_message}); check broker.ca_file and broker.host: this may be another server"
        )
    return (
        f"{whose} is not accepted ({error.verify_message}); check broker.ca_file, broker.host and the date "
        "of this machine"
    )


def own_certificate_fault(detail: str, settings: LinkSettings, now: datetime | None = None) -> str:
    """Say why the broker does not accept this machine's certificate; `detail` is the TLS layer's text."""
    if settings.certificate_file is None:
        return (
            f"the broker at {settings.address} asks for a certificate, and none is configured; set "
            "broker.certificate_file and broker.key_file"
        )
    folded = folded_alert(detail)
    named = f"broker.certificate_file {settings.certificate_file}"
    if "REVOKED" in folded:
        return (
            f"the certificate of this machine was revoked, says the broker at {settings.address} ({named}); "
            "ask the coordinator of the federation"
        )
    if (dates := own_dates_fault(settings, now)) is not None:
        return f"the broker at {settings.address} refuses the certificate of this machine: {dates}"
    if "EXPIRED" in folded:
        return (
            f"the certificate of this machine has expired, says the broker at {settings.address}, but not by "
            f"the clock of this machine, {minutes(now or datetime.now(UTC))} UTC ({named}); one of the two "
            "clocks is wrong"
        )
    return (
        f"the broker at {settings.address} refuses the certificate of this machine ({detail}); check "
        "broker.certificate_file and broker.key_file: is it from the federation's authority?"
    )


def own_dates_fault(settings: LinkSettings, now: datetime | None = None) -> str | None:
    """Say that this machine's certificate is not valid by its own clock; None when it is, or has none."""
    if settings.certificate_file is None:
        return None
    try:
        own = read_certificate_file(Path(settings.certificate_file))
    except InvalidInputError:
        return None
    moment = now or datetime.now(UTC)
    if own.not_valid_before_utc <= moment <= own.not_valid_after_utc:
        return None
    return (
        f"broker.certificate_file {settings.certificate_file} is valid from {validity_in_words(own)}, and "
        f"the clock of this machine says {minutes(moment)} UTC; check the date of this machine, else get a "
        "new certificate"
    )


def folded_alert(detail: str) -> str:
    """Return the TLS layer's text as OpenSSL names its alerts, such as SSLV3_ALERT_CERTIFICATE_REVOKED."""
    return detail.upper().replace(" ", "_")


def _shown_certificate(settings: LinkSettings) -> x509.Certificate | None:
    """Return what the server shows to who does not check it; None when that fails.

    Python's TLS does not hand over a certificate that it refuses.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with (
            open_network(settings, NETWORK_SECONDS) as connection,
            context.wrap_socket(connection, server_hostname=settings.host) as secured,
        ):
            encoded = secured.getpeercert(binary_form=True)
        return None if encoded is None else x509.load_der_x509_certificate(encoded)
    except (OSError, ValueError):
        return None
