"""Founding a federation: keys, certificates, broker, configuration and the roster's first record.

All of it is made in a folder inside the federation's, and moved out of it when it is whole: one that was
stopped half way is made again, and one that was stopped while it moved is moved to its end.
"""

import os
import secrets
import shutil
import time
from base64 import b32encode
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from fedmedclip.aggregator.authority.access_rules import AGGREGATOR
from fedmedclip.aggregator.authority.broker_files import BrokerPlace, write_broker_folder
from fedmedclip.aggregator.authority.certificate_authority import (
    create_authority,
    issue_client_certificate,
)
from fedmedclip.aggregator.configuration import AggregatorConfiguration
from fedmedclip.aggregator.enrolment.folder import (
    CONFIGURATION_FILE,
    KEY_FILE,
    ROSTER_FILE,
    SETTINGS_FILE,
    FederationFolder,
    FederationSettings,
    locked,
    open_folder,
)
from fedmedclip.protocol.bundle.signature import sign_bundle
from fedmedclip.protocol.certificates import certificate_fingerprint, certificate_request, new_tls_key
from fedmedclip.protocol.configuration import convert, parse_toml
from fedmedclip.protocol.configuration.examples import filled_example
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.new_files import write_new_file
from fedmedclip.protocol.roster.chain import found
from fedmedclip.protocol.signature import load_or_create_signing_key

_BEING_MADE, _MADE = ".being-made", ".made"
CERTIFICATE_FILE, TLS_KEY_FILE = "aggregator.pem", "aggregator-key.pem"
# The last of them shows that a federation is there.
PARTS = (
    *("authority", "broker", KEY_FILE, CERTIFICATE_FILE, TLS_KEY_FILE, CONFIGURATION_FILE, ROSTER_FILE),
    SETTINGS_FILE,
)


@dataclass(frozen=True)
class Founding:
    """What a new federation is to be.

    `bundle` is signed with the coordinator's key; `place` says where and as whom the broker runs;
    `passphrase_file` goes into the aggregator's configuration.
    """

    settings: FederationSettings
    passphrase: str
    bundle: Path | None = None
    rounds: int = 30
    place: BrokerPlace | None = None
    passphrase_file: Path | None = None


def refuse_existing(folder: Path) -> None:
    """Raise InvalidInputError when there is something in the way of a new federation."""
    if (folder / _MADE).exists():
        return
    if (folder / SETTINGS_FILE).exists() and (folder / ROSTER_FILE).exists():
        raise InvalidInputError(f"{folder} holds a federation already; use it, or name another folder")
    for name in PARTS:
        if os.path.lexists(folder / name):
            raise InvalidInputError(
                f"{folder} has a {name} already, which a new federation would replace; take another folder"
            )


def found_federation(folder: Path, founding: Founding, now: datetime) -> tuple[FederationFolder, bool]:
    """Found a federation in `folder`, and return it opened.

    Where an earlier call was stopped when all was made, that federation is finished, as it was asked for
    then: the second value says so. Raises InvalidInputError, also where one is there already.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with locked(folder):
        refuse_existing(folder)
        made = folder / _MADE
        finished = made.exists()
        if not finished:
            being_made = folder / _BEING_MADE
            shutil.rmtree(being_made, ignore_errors=True)
            being_made.mkdir(mode=0o700)
            _make(being_made, folder.resolve(), founding, now)
            being_made.rename(made)
        for name in PARTS:
            if (made / name).exists():
                (made / name).rename(folder / name)
        made.rmdir()
    return open_folder(folder), finished


def _make(into: Path, folder: Path, founding: Founding, now: datetime) -> None:
    """Make every part in `into`, as it will be in `folder`."""
    settings = founding.settings
    text = _aggregator_toml(folder, founding)
    key = load_or_create_signing_key(into / KEY_FILE)
    authority = create_authority(into / "authority", settings.name, founding.passphrase, now)
    place = founding.place or BrokerPlace()
    write_broker_folder(
        into / "broker",
        authority,
        settings.name,
        settings.broker_hosts,
        now,
        place=BrokerPlace(settings.broker_port, place.plugin, place.user, place.folder or folder / "broker"),
        lifetime=timedelta(days=settings.broker_certificate_days),
    )
    tls_key = new_tls_key()
    certificate = issue_client_certificate(
        authority,
        AGGREGATOR,
        certificate_request(tls_key, AGGREGATOR),
        now,
        timedelta(days=settings.certificate_days),
    )
    write_new_file(into / TLS_KEY_FILE, tls_key, private=True)
    write_new_file(into / CERTIFICATE_FILE, certificate)
    # It names the client identifier, with which another could take over the aggregator's session.
    write_new_file(into / CONFIGURATION_FILE, text.encode(), private=True)
    roster = found(settings.name, certificate_fingerprint(authority.certificate), key, int(now.timestamp()))
    write_new_file(into / ROSTER_FILE, roster.encoded)
    write_new_file(into / SETTINGS_FILE, settings_text(settings).encode())
    if founding.bundle is not None:
        sign_bundle(founding.bundle, key)


def _aggregator_toml(folder: Path, founding: Founding) -> str:
    """Return the aggregator's configuration, with every setting."""
    settings = founding.settings
    values = {
        "name": settings.name,
        "bundle": None if founding.bundle is None else _from(folder, founding.bundle),
        "rounds": founding.rounds,
        "broker_access": True,
        "key": KEY_FILE,
        "roster": ROSTER_FILE,
        "authority_passphrase_file": (
            None if founding.passphrase_file is None else _from(folder, founding.passphrase_file)
        ),
        "host": settings.broker_host,
        "port": settings.broker_port,
        "tls": True,
        "ca_file": "authority/ca.pem",
        "certificate_file": CERTIFICATE_FILE,
        "key_file": TLS_KEY_FILE,
        # Not from the key, as otherwise: the session at the broker outlives a rotation of that.
        "client_id": "fmc" + b32encode(secrets.token_bytes(13)).decode().lower()[:20],
    }
    text = filled_example("aggregator.toml", values)
    convert(parse_toml(text, "with these values"), AggregatorConfiguration, "with these values")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidInputError(f"{folder}: a path that is not UTF-8 cannot stand in it") from error
    return text


def _from(folder: Path, path: Path) -> str:
    """Return a path as it is meant in a file in `folder`, which may be moved with what is in it."""
    real = Path(os.path.realpath(path))
    within = real.is_relative_to(folder)
    return str(path) if path.is_absolute() and not within else os.path.relpath(real, folder)


def settings_text(settings: FederationSettings) -> str:
    """Return `federation.toml`, with comments."""
    names = ", ".join(f'"{name}"' for name in settings.broker_names)
    return f"""\
# The federation {settings.name}, founded {time.strftime("%Y-%m-%d")}: what `fedmedclip federation` goes by.

name = "{settings.name}"
broker_host = "{settings.broker_host}"       # where sites find the broker, in every invitation
broker_port = {settings.broker_port}
broker_names = [{names}]         # further names and addresses of the broker, for its certificate
invitation_days = {settings.invitation_days}              # how long an invitation is good
certificate_days = {settings.certificate_days}           # of sites and of the aggregator
broker_certificate_days = {settings.broker_certificate_days}
"""
