"""The paho client of the MQTT link, and the MQTT version that it speaks to a broker."""

import logging
import os
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.link.connection import LinkClient
from fedmedclip.protocol.link.reasons import Ending
from fedmedclip.protocol.link.settings import (
    LARGEST_MESSAGE_BYTES,
    LinkSettings,
    read_password,
    split_host_port,
    tls_context,
)

log = logging.getLogger("fedmedclip.link")

# Messages that an MQTT 5 broker may have outstanding towards us.
RECEIVING_WINDOW = 32
# Times that a broker may close without a word before the other version is tried.
SILENT_CLOSURES = 2


@dataclass(frozen=True)
class Message:
    """A message to publish: ordinary, last will, or last words."""

    topic: str
    payload: bytes
    qos: int = 1
    retain: bool = False


Will = Message | Callable[[], Message]
"""A last will, or what makes one for each attempt to connect. It is called on the network thread."""


class ClientFactory:
    """Makes clients of one identity. Raises InvalidInputError for unusable certificate or password files."""

    def __init__(
        self, settings: LinkSettings, client_id: str, will: Will | None, *, lasting: bool = True
    ) -> None:
        self._lasting = lasting
        self._settings = settings
        self._client_id = client_id
        self._will = will
        self._tls: ssl.SSLContext | None = tls_context(settings)
        self._tls_files = _state_of_tls_files(settings)
        self._password = read_password(settings)

    @property
    def has_will(self) -> bool:
        """Whether the broker is left a last will."""
        return self._will is not None

    def make(self, protocol: str, *, leave_will: bool = True) -> LinkClient:
        """Return a client, not yet connected, that speaks MQTT "5" or "3.1.1"."""
        settings = self._settings
        options: dict[str, Any] = {
            "client_id": self._client_id,
            "transport": settings.transport,
            "manual_ack": True,
            # Otherwise paho steps down to MQTT 3.1 by itself.
            "reconnect_on_failure": False,
        }
        if protocol == "5":
            options["protocol"] = MQTTProtocolVersion.MQTTv5
        else:
            options |= {"protocol": MQTTProtocolVersion.MQTTv311, "clean_session": not self._lasting}
        proxy = None if settings.proxy is None else split_host_port(settings.proxy, "broker.proxy")
        client = LinkClient(CallbackAPIVersion.VERSION2, proxy=proxy, **options)
        client.lasting = self._lasting
        # No limit inside paho: it does not keep to one across a reconnect. The link has its own window.
        client.max_inflight_messages_set(0)
        if self._tls is not None:
            client.tls_set_context(self._tls)
        if settings.transport == "websockets":
            client.ws_set_options(path=settings.websocket_path)
        if settings.username is not None:
            client.username_pw_set(settings.username, self._password)
        if self._will is not None and leave_will:
            will = self._will if isinstance(self._will, Message) else self._will()
            client.will_set(will.topic, will.payload, will.qos, will.retain)
        # Its presence alone keeps paho from writing to the socket inside publish and ack.
        client.on_socket_register_write = lambda *_: None
        return client

    def take_renewed_files(self) -> bool:
        """Return whether the certificate files are others than before; clients made from now on use them."""
        if (state := _state_of_tls_files(self._settings)) == self._tls_files:
            return False
        try:
            self._tls, self._tls_files = tls_context(self._settings), state
        except InvalidInputError as error:
            # What worked until now may do so still; who is half-way through copying files ends soon.
            log.warning("the certificate files were changed and cannot be used: %s", error)
            return False
        return True


def _state_of_tls_files(settings: LinkSettings) -> list[tuple[int, int] | None]:
    """Return what changes when one of the files does."""
    found: list[tuple[int, int] | None] = []
    for name in ("ca_file", "certificate_file", "key_file"):
        path = getattr(settings, name)
        try:
            status = None if path is None else os.stat(path)
        except OSError:
            status = None
        found.append(None if status is None else (status.st_ino, status.st_mtime_ns))
    return found


def connect(client: LinkClient, settings: LinkSettings, protocol: str) -> None:
    """Open the network connection and queue the CONNECT packet; OSError when the former fails."""
    options: dict[str, Any] = {}
    if protocol == "5":
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = settings.session_expiry_seconds if client.lasting else 0
        properties.ReceiveMaximum = RECEIVING_WINDOW
        properties.MaximumPacketSize = 2 * LARGEST_MESSAGE_BYTES
        options = {"clean_start": not client.lasting, "properties": properties}
    client.connect(settings.host, settings.broker_port, settings.keepalive_seconds, **options)


class ProtocolChoice:
    """Which MQTT version to speak: the configured one, or 5 until the broker shows that it does not know it.

    A broker that knows only 3.1.1 says so, or closes the connection without a word, or waits for ever for
    the rest of a packet that it misreads (amqtt, which takes the properties for a longer client identifier).
    The latter two may also be chance, so the versions take turns until a connection has succeeded.
    """

    def __init__(self, configured: str) -> None:
        self._settled = None if configured == "auto" else configured
        self._closures = 0

    @property
    def undecided(self) -> bool:
        """True while MQTT 5 is tried without knowing whether the broker knows it."""
        return self._settled is None and self.current == "5"

    @property
    def current(self) -> str:
        """The version for the next attempt: "5" or "3.1.1"."""
        if self._settled is not None:
            return self._settled
        return "3.1.1" if self._closures % (2 * SILENT_CLOSURES) >= SILENT_CLOSURES else "5"

    def succeeded(self) -> None:
        """Remember that the broker accepted the current version."""
        self._settled = self.current

    def failed(self, ending: Ending) -> bool:
        """Learn from a failed attempt; return True when another version is worth trying at once."""
        if self._settled is not None:
            return False
        if ending.unsupported_protocol and self.current == "5":
            self._settled = "3.1.1"
            return True
        if ending.unanswered and self.current == "5":
            self._closures += SILENT_CLOSURES
            return True
        self._closures += ending.silent
        return False
