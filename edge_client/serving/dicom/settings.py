"""The table `[dicom]` of `serve.toml`: who may send images, and where reports go."""

from pathlib import Path
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta

from fedmedclip.protocol.configuration.annotations import File, NewFolder
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.web.settings import is_loopback

AeTitle = Annotated[
    str,
    Meta(
        pattern=r"^ *[\x21-\x5b\x5d-\x7e][\x20-\x5b\x5d-\x7e]*\Z",
        max_length=16,
        description="an AE title: 1 to 16 characters of ASCII without backslash",
    ),
]
# 0 takes a free port.
Port = Annotated[int, Meta(ge=0, le=65535)]
LARGEST_FILE_BYTES = 4 * 1024 * 1024 * 1024

_FILES = ("certificate_file", "key_file", "ca_file", "client_ca_file")
_Table = TypeVar("_Table", bound=msgspec.Struct)


class Peer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One that may open associations: its AE title and, where it is given, the host that it calls from."""

    ae_title: AeTitle
    host: str | None = None


class Destination(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An archive that reports are sent to by C-STORE.

    `calling_ae_title` is what we call ourselves there, by default the node's own title. With `tls` the
    archive's certificate is checked against `ca_file`, by default the system's authorities; our own is in
    `certificate_file` and `key_file`. Raises InvalidInputError when they do not fit together.
    """

    ae_title: AeTitle
    host: str
    port: Annotated[int, Meta(ge=1, le=65535)]
    calling_ae_title: AeTitle | None = None
    tls: bool = False
    ca_file: File | None = None
    certificate_file: File | None = None
    key_file: File | None = None

    def __post_init__(self) -> None:
        if not self.tls and (self.ca_file or self.certificate_file or self.key_file):
            raise InvalidInputError(f"destination {self.ae_title} names certificate files; add tls = true")
        _require_pair(self.certificate_file, self.key_file)


class DicomSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The table `[dicom]`. Paths are relative to the configuration file.

    Without `peers` nobody may send, unless `any_peer` is set. `certificate_file` and `key_file` turn TLS on;
    with `client_ca_file` who calls has to have a certificate of that authority. `largest_file_bytes` bounds
    one image with its header. An association that is silent for `idle_seconds` is ended. `reports` is a
    folder that reports are written to. With `secondary_capture` an image with the answer written below it
    goes with each report; with `explain` it shows which regions carry the answer.

    Raises InvalidInputError when settings do not fit together, and for a node that anybody may reach who has
    no certificate.
    """

    ae_title: AeTitle = "FEDMEDCLIP"
    host: str = "127.0.0.1"
    port: Port = 11112
    peers: list[Peer] = []
    any_peer: bool = False
    certificate_file: File | None = None
    key_file: File | None = None
    client_ca_file: File | None = None
    largest_file_bytes: Annotated[int, Meta(ge=1 << 16, le=LARGEST_FILE_BYTES)] = 1024 * 1024 * 1024
    most_associations: Annotated[int, Meta(ge=1, le=200)] = 10
    idle_seconds: Annotated[float, Meta(ge=1, le=3600)] = 60.0
    reports: NewFolder | None = None
    secondary_capture: bool = False
    explain: bool = False
    destinations: list[Destination] = []

    def __post_init__(self) -> None:
        _require_pair(self.certificate_file, self.key_file)
        if self.client_ca_file and not self.certificate_file:
            raise InvalidInputError("client_ca_file needs certificate_file and key_file, the node's own")
        if self.any_peer and self.peers:
            raise InvalidInputError("any_peer lets everybody send and peers says who may; leave one out")
        if self.any_peer and not self.client_ca_file and not is_loopback(self.host):
            raise InvalidInputError(
                f"any_peer with host {self.host!r} would take images from anybody on the network; name the "
                "peers, or set certificate_file, key_file and client_ca_file"
            )
        addresses = {(there.ae_title.strip(), there.host, there.port) for there in self.destinations}
        if len(addresses) < len(self.destinations):
            raise InvalidInputError("two destinations have the same AE title, host and port; leave one out")

    def relative_to(self, folder: Path) -> "DicomSettings":
        """Return the settings with relative paths taken from `folder`, where the configuration lies."""
        mine = _with_paths(self, folder, (*_FILES, "reports"))
        destinations = [_with_paths(destination, folder, _FILES) for destination in self.destinations]
        return msgspec.structs.replace(mine, destinations=destinations)


def _with_paths(table: _Table, folder: Path, names: tuple[str, ...]) -> _Table:
    values = {name: getattr(table, name, None) for name in names}
    found = {name: str(folder / Path(value).expanduser()) for name, value in values.items() if value}
    return msgspec.structs.replace(table, **found)


def _require_pair(certificate: str | None, key: str | None) -> None:
    if (certificate is None) != (key is None):
        raise InvalidInputError("certificate_file and key_file are needed together")
