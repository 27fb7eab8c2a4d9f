"""What `fedmedclip federation init` is told: by options, by a file, or by who sits there."""

from datetime import timedelta
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from fedmedclip.aggregator.enrolment.folder import Days
from fedmedclip.protocol.configuration import beside, read_configuration
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.link.settings import LinkSettings, split_host_port

_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_DEFAULT_PORT = 8883
LONGEST_INVITATION = timedelta(days=90)


class FoundingFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The TOML that `--config` names; each value may as well be an option. Paths are relative to the file.

    `name` is the federation's; `broker` is HOST or HOST:PORT; `broker_names` are further names and addresses
    for the broker's certificate. `bundle` is the federation's bundle, which is signed; `rounds` are those of
    the first run. `passphrase_file` is read now, and named in aggregator.toml. `plugin` is Mosquitto's
    dynamic security plugin on the broker's machine; `user` is the system's user as whom the broker runs;
    `broker_folder` is where the folder broker/ will lie on another machine. `invitation_days`,
    `certificate_days` and `broker_certificate_days` say how long an invitation and a certificate are good.
    """

    name: str | None = None
    broker: str | None = None
    broker_names: list[str] = []
    bundle: str | None = None
    rounds: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None
    passphrase_file: str | None = None
    plugin: str | None = None
    user: str | None = None
    broker_folder: str | None = None
    invitation_days: Annotated[int, Meta(ge=1, le=90)] = 7
    certificate_days: Days = 397
    broker_certificate_days: Days = 730


def read_founding_file(path: Path | None) -> FoundingFile:
    """Return what a file says, with paths as seen from here. Raises InvalidInputError."""
    if path is None:
        return FoundingFile()
    found = read_configuration(path, FoundingFile)
    paths = {
        name: str(beside(path, value))
        for name in ("bundle", "passphrase_file")
        if (value := getattr(found, name)) is not None
    }
    return msgspec.structs.replace(found, **paths)


def split_broker(text: str) -> tuple[str, int]:
    """Return host and port of HOST, HOST:PORT or [IPv6 address]:PORT. Raises InvalidInputError."""
    alone = text.count(":") != 1 and not text.rpartition(":")[0].endswith("]")
    host, port = (text, _DEFAULT_PORT) if alone else split_host_port(text, "--broker")
    return LinkSettings(host=host, port=port).host.strip("[]"), port


def read_lifetime(text: str) -> timedelta:
    """Return the time that a number and its unit say, such as 7d, 12h or 30m. Raises InvalidInputError."""
    number, unit = text[:-1], text[-1:]
    if unit in _UNITS and number.isascii() and number.isdigit() and 0 < int(number) < 100_000:
        lifetime = timedelta(**{_UNITS[unit]: int(number)})
        if lifetime <= LONGEST_INVITATION:
            return lifetime
    raise InvalidInputError(f"--expires is {text!r}; give a number and m, h, d or w, up to 90d: 7d")
