"""Why a connection failed, in words, and whether trying again can help."""

import socket
import ssl
from dataclasses import dataclass, replace

from fedmedclip.protocol.link.certificate_faults import (
    folded_alert,
    own_certificate_fault,
    own_dates_fault,
    server_certificate_fault,
)
from fedmedclip.protocol.link.settings import LinkSettings

# Names of MQTT reason codes after which only a person can help (MQTT 5, section 2.4; paho gives the return
# codes of MQTT 3.1.1 the same names).
FATAL_REASONS = {
    "Bad user name or password": "check broker.username and broker.password_file",
    "Not authorized": "check this client's user name, certificate and the broker's access rules",
    "Banned": "ask who runs the broker",
    "Bad authentication method": "check how the broker authenticates clients",
    "Client identifier not valid": "ask who runs the broker for one, and set broker.client_id",
    "Session taken over": "another client with the same identifier connected: is this party started twice, "
    "or another one from a copy of its state?",
    "Retain not supported": "it must keep retained messages (Mosquitto: retain_available true)",
    "QoS not supported": "it must allow QoS 1 (Mosquitto: max_qos)",
    "Unsupported protocol version": 'set broker.protocol to "auto", or check what listens there',
}
# Reasons that lie in something we sent: sending it again would end the next connection too.
MESSAGE_REASONS = {
    "Malformed packet",
    "Protocol error",
    "Implementation specific error",
    "Topic name invalid",
    "Packet too large",
    "Payload format invalid",
}


@dataclass(frozen=True)
class Ending:
    """How one connection, or the attempt at it, ended.

    `fatal`: only a person at this machine can mend it. `unless_accepted`: but not where the same settings
    were accepted before, since then something changed elsewhere.
    """

    reason: str
    fatal: bool = False
    unless_accepted: bool = False
    unsupported_protocol: bool = False
    blames_message: bool = False
    unanswered: bool = False
    silent: bool = False  # closed by the other side without a word, as some old brokers answer MQTT 5


def connect_failure(error: OSError, settings: LinkSettings) -> Ending:
    """Describe what kept the network connection from being made."""
    address = settings.address
    if isinstance(error, ssl.SSLCertVerificationError):
        # Never fatal. The date of a small machine without a battery clock is wrong until it has reached a
        # time server; another name or authority may be a guest network's, or a mistake at the broker.
        return Ending(server_certificate_fault(error, settings))
    if isinstance(error, ssl.SSLError):
        # What is said before the handshake is over may come from anyone on the way.
        return replace(broken_connection(str(error), settings), fatal=False)
    if isinstance(error, socket.gaierror):
        return Ending(f"host name {settings.host} cannot be resolved ({error.strerror})")
    if isinstance(error, ConnectionRefusedError):
        return Ending(f"no broker at {address} (connection refused)")
    if isinstance(error, TimeoutError):
        return Ending(f"no answer from {address}")
    return Ending(f"cannot connect to {address} ({(error.strerror or str(error)).lower()})")


def connection_refused(reason: str, settings: LinkSettings) -> Ending:
    """Describe a CONNACK or DISCONNECT packet of the broker with the named reason."""
    advice = FATAL_REASONS.get(reason)
    words = f"the broker at {settings.address} says: {reason.lower()}"
    return Ending(
        f"{words}; {advice}" if advice else words,
        fatal=advice is not None,
        unsupported_protocol=reason == "Unsupported protocol version",
        blames_message=reason in MESSAGE_REASONS,
    )


def broken_connection(detail: str, settings: LinkSettings) -> Ending:
    """Describe a connection that broke; `detail` is the network or TLS layer's text, possibly empty."""
    folded = folded_alert(detail)
    if "_ALERT_" in folded and ("CERTIFICATE" in folded or "UNKNOWN_CA" in folded):
        return Ending(
            own_certificate_fault(detail, settings),
            fatal="EXPIRED" not in folded and own_dates_fault(settings) is None,
            unless_accepted="REVOKED" not in folded,
        )
    if detail:
        return Ending(f"connection to {settings.address} lost ({detail})", silent="SSL" not in folded)
    return Ending(f"connection closed by {settings.address}", silent=True)


def repeated_ending(ending: Ending, client_id: str) -> Ending:
    """Add what usually lies behind connections that are accepted and soon closed, again and again.

    MQTT 3.1.1 brokers do not say it.
    """
    return replace(
        ending,
        reason=f"{ending.reason}, again; does another client use the name {client_id}, "
        "or is a message above the broker's limit?",
    )
