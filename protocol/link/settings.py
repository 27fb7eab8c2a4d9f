"""How to reach the broker: the `[broker]` table of every configuration file."""

import ipaddress
import logging
import ssl
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from fedmedclip.protocol.configuration.annotations import File
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.paths import open_regular_file, path_fault
from fedmedclip.protocol.private_files import refuse_readers
from fedmedclip.protocol.text_files import read_text_file

log = logging.getLogger("fedmedclip.link")

Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
Seconds = Annotated[float, msgspec.Meta(gt=0, le=3600)]

# Of the large cloud brokers the smallest limit is 128 KiB (AWS IoT Core).
SMALLEST_COMMON_LIMIT = 128 * 1024
LARGEST_MESSAGE_BYTES = 16 * 1024 * 1024
ONE_WEEK = 7 * 24 * 3600
PATH_FIELDS = ("ca_file", "certificate_file", "key_file", "password_file")


class LinkSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Address, identity and limits of one client of an MQTT broker.

    Without `port` the usual one of the transport is taken: 1883, with TLS 8883, for WebSockets 80 and 443.
    `maximum_message_bytes` bounds the payload of one message, envelope included; larger content is chunked
    by the caller. `client_id` replaces the name that a party derives from its key, for a broker that asks for
    a certain one. `proxy` is an HTTP proxy, host:port, that allows CONNECT. `session_expiry_seconds` is how
    long an MQTT 5 broker keeps messages for a client that is away.

    Raises InvalidInputError when values do not fit together.
    """

    host: str = "localhost"
    port: Port | None = None
    transport: Literal["tcp", "websockets"] = "tcp"
    websocket_path: str = "/mqtt"
    tls: bool = False
    ca_file: File | None = None
    certificate_file: File | None = None
    key_file: File | None = None
    username: str | None = None
    password_file: File | None = None
    client_id: Annotated[str, msgspec.Meta(min_length=1, max_length=128)] | None = None
    proxy: str | None = None
    protocol: Literal["auto", "5", "3.1.1"] = "auto"
    keepalive_seconds: Annotated[int, msgspec.Meta(ge=5, le=3600)] = 25
    session_expiry_seconds: Annotated[int, msgspec.Meta(ge=60, le=0xFFFFFFFE)] = ONE_WEEK
    maximum_message_bytes: Annotated[int, msgspec.Meta(ge=4096, le=LARGEST_MESSAGE_BYTES)] = (
        SMALLEST_COMMON_LIMIT
    )
    first_retry_seconds: Seconds = 1.0
    longest_retry_seconds: Seconds = 3.0

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "host", _host_alone(self.host))
        if not self.websocket_path.startswith("/"):
            raise InvalidInputError(f"websocket_path is {self.websocket_path!r}; it must start with /")
        if not self.tls and (self.ca_file or self.certificate_file or self.key_file):
            raise InvalidInputError("certificate files are named but tls is off; add tls = true")
        if (self.certificate_file is None) != (self.key_file is None):
            raise InvalidInputError("certificate_file and key_file are needed together")
        if self.password_file is not None and not self.username:
            raise InvalidInputError("password_file needs a username")
        if self.client_id is not None and not self.client_id.isprintable():
            raise InvalidInputError(f"client_id is {self.client_id!r}; it must be printable")
        if self.longest_retry_seconds < self.first_retry_seconds:
            raise InvalidInputError("longest_retry_seconds is below first_retry_seconds")
        if self.proxy is not None:
            split_host_port(self.proxy, "proxy")

    @property
    def broker_port(self) -> int:
        """The configured port, or the usual one of the transport."""
        if self.port is not None:
            return self.port
        if self.transport == "websockets":
            return 443 if self.tls else 80
        return 8883 if self.tls else 1883

    @property
    def address(self) -> str:
        """host:port, for messages to people."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.broker_port}"

    def relative_to(self, folder: Path) -> "LinkSettings":
        """Return the settings with relative file names taken from `folder`, where the configuration lies."""
        values = {name: getattr(self, name) for name in PATH_FIELDS}
        found = {name: str(folder / value) for name, value in values.items() if value is not None}
        return msgspec.structs.replace(self, **found)


def _host_alone(text: str) -> str:
    """Return a host name, or an address without its brackets; InvalidInputError for anything else."""
    host = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    wrong = f"host is {_without_secret(text)!r}; "
    if "@" in host:
        raise InvalidInputError(wrong + "give the user in `username` and the password in `password_file`")
    if not host or "/" in host or any(character.isspace() for character in host):
        raise InvalidInputError(wrong + "give a host name or address alone, without mqtt:// or a path")
    if (":" in host or host != text) and not _is_address_of_version_6(host):
        raise InvalidInputError(wrong + "give the name or address alone, and the port in `port`")
    return host


def split_host_port(text: str, name: str) -> tuple[str, int]:
    """Split "host:port" or "[IPv6 address]:port"; InvalidInputError calls the setting by `name`."""
    host, _, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if bracketed else host
    wrong = f"{name} is {_without_secret(text)!r}; "
    if "@" in text:
        raise InvalidInputError(
            wrong
            + "one that asks for a name and a password is not supported: let it know this machine's address"
        )
    if "/" in text:
        raise InvalidInputError(wrong + "expected host:port alone, without http:// or a path")
    if (":" in host or bracketed) and not (bracketed and _is_address_of_version_6(host)):
        raise InvalidInputError(wrong + "expected host:port, an IPv6 address in brackets: [2001:db8::1]:3128")
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise InvalidInputError(wrong + "expected host:port, for example proxy.example.org:3128")
    return host, int(port)


def _is_address_of_version_6(host: str) -> bool:
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        return False
    return True


def _without_secret(text: str) -> str:
    """Return an address without the password that somebody put into it."""
    before, at, host = text.rpartition("@")
    return f"{before.partition('://')[1] and before.partition('://')[0] + '://'}...@{host}" if at else text


def tls_context(settings: LinkSettings) -> ssl.SSLContext | None:
    """Return the TLS context with its certificates loaded, None when TLS is off.

    Raises InvalidInputError for a file that is missing or no usable certificate or key.
    """
    if not settings.tls:
        return None
    for name in ("ca_file", "certificate_file", "key_file"):
        path = getattr(settings, name)
        if path is not None and (fault := path_fault(Path(path), "file")):
            raise InvalidInputError(f"broker.{name} {path}: {fault}")
    try:
        context = ssl.create_default_context(cafile=settings.ca_file)
    except (ssl.SSLError, OSError) as error:
        raise InvalidInputError(
            f"broker.ca_file {settings.ca_file} holds no readable PEM certificate ({error})"
            + _mark_hint(settings.ca_file)
        ) from error
    if settings.certificate_file is not None:
        try:
            # An empty password keeps OpenSSL from asking for one on the terminal of a service.
            context.load_cert_chain(settings.certificate_file, settings.key_file, password="")
        except (ssl.SSLError, OSError) as error:
            raise InvalidInputError(
                f"broker.certificate_file {settings.certificate_file} and broker.key_file "
                f"{settings.key_file} are not a matching pair of PEM files without pass phrase ({error})"
                + _mark_hint(settings.certificate_file, settings.key_file)
            ) from error
    return context


def _mark_hint(*paths: str | None) -> str:
    """Return what to do where a PEM file begins with a byte order mark, which OpenSSL does not skip."""
    marked = [path for path in paths if path is not None and _begins_with_mark(Path(path))]
    return f"; {marked[0]} begins with a byte order mark: save it as UTF-8 without one" if marked else ""


def _begins_with_mark(path: Path) -> bool:
    with open_regular_file(path) as file:
        start = file.read(3)
    return start == BOM_UTF8 or start[:2] in (BOM_UTF16_LE, BOM_UTF16_BE)


def read_password(settings: LinkSettings) -> str | None:
    """Return the first line of the password file, None without one; InvalidInputError when unreadable.

    Only a line feed, or carriage return and line feed, ends it; all else, blanks too, is of the password.
    """
    if settings.password_file is None:
        return None
    path = Path(settings.password_file)
    # Not splitlines(), which also parts at characters that a password may have.
    password = read_text_file(path, "broker.password_file").split("\n", 1)[0].removesuffix("\r")
    if not password:
        raise InvalidInputError(f"the first line of broker.password_file {path} is empty")
    return password


def check_secrets(settings: LinkSettings) -> None:
    """Look at this client's secrets: who can read the files, and blanks around a password, which are logged.

    Raises InvalidInputError where other users can read one, and as `read_password` does.
    """
    for name in ("key_file", "password_file"):
        if (path := getattr(settings, name)) is not None:
            refuse_readers(Path(path), f"broker.{name}")
    password = read_password(settings)
    if password is not None and password != password.strip():
        log.warning(
            "the password in broker.password_file %s begins or ends with a blank, which is sent too",
            settings.password_file,
        )
