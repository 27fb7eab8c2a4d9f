"""Where a process listens for HTTP, and who may come in: what tables such as `[http]` and `[page]` share."""

import ipaddress
import re
import ssl
from pathlib import Path
from typing import Annotated, ClassVar, Self

import msgspec
from msgspec import Meta

from fedmedclip.protocol.configuration.annotations import File
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.paths import path_fault
from fedmedclip.protocol.private_files import refuse_readers
from fedmedclip.protocol.text_files import read_text_file

_PATH_FIELDS = ("token_file", "certificate_file", "key_file", "client_ca_file")
_LEAST_TOKEN = 16
# What RFC 6750 lets stand behind "Bearer".
_TOKEN = re.compile(r"[A-Za-z0-9\-._~+/]+=*")
_ORIGIN = re.compile(r"https?://[^/\s?#@]+")


class ListenSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where a door listens and who may come in. `TABLE` is its name in the configuration.

    With port 0 the system picks one. `token`, or the first line of `token_file`, is what a client sends as
    `Authorization: Bearer TOKEN`. `certificate_file` and `key_file` make it HTTPS; `client_ca_file` demands a
    certificate of the client, too. `allowed_origins` are other web sites whose pages may ask; `server_names`
    are names beside the host by which clients may call this machine.

    Raises InvalidInputError where values do not fit together: a door that is open wider than this machine
    needs TLS and a token.
    """

    TABLE: ClassVar[str] = "http"

    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535)] = 8080
    token: str | None = None
    token_file: File | None = None
    certificate_file: File | None = None
    key_file: File | None = None
    client_ca_file: File | None = None
    most_connections: Annotated[int, Meta(ge=1, le=10_000)] = 100
    allowed_origins: list[str] = []
    server_names: list[str] = []

    def __post_init__(self) -> None:
        host = self.host[1:-1] if self.host.startswith("[") and self.host.endswith("]") else self.host
        msgspec.structs.force_setattr(self, "host", host)
        if not host or "/" in host or any(character.isspace() for character in host):
            raise InvalidInputError(f"host is {host!r}; give a host name or address alone")
        if self.token is not None and self.token_file is not None:
            raise InvalidInputError("token and token_file are both given; leave one of them out")
        if self.token is not None:
            require_token(self.token, "token")
        if (self.certificate_file is None) != (self.key_file is None):
            raise InvalidInputError("certificate_file and key_file are needed together")
        if self.client_ca_file is not None and not self.tls:
            raise InvalidInputError("client_ca_file needs certificate_file and key_file: who talks TLS?")
        for origin in self.allowed_origins:
            if not _ORIGIN.fullmatch(origin):
                raise InvalidInputError(
                    f"allowed_origins holds {origin!r}; give https://HOST or https://HOST:PORT alone"
                )
        lacking = [] if self.tls else ["TLS (certificate_file and key_file)"]
        lacking += [] if self.has_token else ["a token (token_file)"]
        if lacking and not self.on_loopback:
            raise InvalidInputError(
                f"host {host} is open to other machines, which needs {' and '.join(lacking)}; or leave host "
                "at 127.0.0.1"
            )

    @property
    def tls(self) -> bool:
        """Whether the door talks HTTPS."""
        return self.certificate_file is not None

    @property
    def has_token(self) -> bool:
        """Whether clients have to bring a token."""
        return self.token is not None or self.token_file is not None

    @property
    def on_loopback(self) -> bool:
        """Whether only programs of this machine can reach the door."""
        return is_loopback(self.host)

    def relative_to(self, folder: Path) -> Self:
        """Return the settings with relative file names taken from `folder`, where the configuration lies."""
        values = {name: getattr(self, name) for name in _PATH_FIELDS}
        found = {name: str(folder / value) for name, value in values.items() if value is not None}
        return msgspec.structs.replace(self, **found)

    def address(self, port: int) -> str:
        """Return what a browser is given to reach the door, which really listens on `port`."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{port}/"


def is_loopback(host: str) -> bool:
    """Whether a host name or address, without brackets, is this machine's own."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def read_token(settings: ListenSettings) -> bytes | None:
    """Return the token that clients have to bring, None without one.

    Raises InvalidInputError for a file that cannot be read, that others can read, or that holds no token.
    """
    if settings.token is not None:
        return settings.token.encode()
    if settings.token_file is None:
        return None
    path, what = Path(settings.token_file), f"{settings.TABLE}.token_file"
    refuse_readers(path, what)
    lines = read_text_file(path, what).splitlines()
    token = lines[0].strip() if lines else ""
    require_token(token, f"the first line of {what} {path}")
    return token.encode()


def tls_context(settings: ListenSettings) -> ssl.SSLContext | None:
    """Return the server's TLS context with its certificates loaded, None without TLS.

    Raises InvalidInputError for files that are missing, no usable certificates or keys, or a key that others
    can read.
    """
    if settings.certificate_file is None or settings.key_file is None:
        return None
    table = settings.TABLE
    for name in _PATH_FIELDS[1:]:
        path = getattr(settings, name)
        if path is not None and (fault := path_fault(Path(path), "file")):
            raise InvalidInputError(f"{table}.{name} {path}: {fault}")
    refuse_readers(Path(settings.key_file), f"{table}.key_file")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        # An empty password keeps OpenSSL from asking for one on the terminal of a service.
        context.load_cert_chain(settings.certificate_file, settings.key_file, password="")
    except (ssl.SSLError, OSError) as error:
        raise InvalidInputError(
            f"{table}.certificate_file {settings.certificate_file} and {table}.key_file {settings.key_file} "
            f"are not a matching pair of PEM files without pass phrase ({error})"
        ) from error
    if settings.client_ca_file is not None:
        try:
            context.load_verify_locations(settings.client_ca_file)
        except (ssl.SSLError, OSError) as error:
            raise InvalidInputError(
                f"{table}.client_ca_file {settings.client_ca_file} holds no readable PEM certificate "
                f"({error})"
            ) from error
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def require_token(token: str, what: str) -> None:
    """Raise InvalidInputError for a token that is too short, or that no header can carry."""
    if len(token) < _LEAST_TOKEN or not _TOKEN.fullmatch(token):
        raise InvalidInputError(
            f"{what} has to be at least {_LEAST_TOKEN} letters, digits or -._~+/, for example of "
            "`openssl rand -hex 32`"
        )
