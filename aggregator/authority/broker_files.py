"""The folder of a federation's Mosquitto: configuration, certificates, revocation list, first access rules.

`mosquitto -c FOLDER/mosquitto.conf` starts it: only members with a certificate of the federation's authority
get in (TLS 1.2 or later), and what each may do stands in Mosquitto's own plugin for dynamic security, which
the aggregator keeps equal to the roster (`broker_access`).
"""

import os
import pwd
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import msgspec

from fedmedclip.aggregator.authority.access_rules import WantedAccess, rules_of, wanted_roles
from fedmedclip.aggregator.authority.certificate_authority import (
    SERVER_LIFETIME,
    Authority,
    issue_server_certificate,
    revocation_list,
)
from fedmedclip.protocol.certificates import new_tls_key, public_pem
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.new_files import write_new_file

CONFIGURATION_FILE, RULES_FILE, PID_FILE = "mosquitto.conf", "dynamic-security.json", "mosquitto.pid"
CERTIFICATE_FILE, KEY_FILE, AUTHORITY_FILE, LIST_FILE = "broker.pem", "broker-key.pem", "ca.pem", "crl.pem"
PLUGIN = "mosquitto_dynamic_security.so"
# Where Debian, Fedora, Alpine, a build from source and Homebrew put it.
_PLUGIN_FOLDERS = ("/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/local/lib64", "/opt/homebrew/lib")
_PLUGIN_DEPTHS = ("", "*/", "mosquitto/", "*/mosquitto/")


@dataclass(frozen=True)
class BrokerPlace:
    """Where and as whom the broker runs.

    `plugin` is the path of mosquitto_dynamic_security.so (None: found on this machine), `user` the system's
    user (None: who calls), `folder` where the files will lie on the broker's machine (None: where they are
    written).
    """

    port: int = 8883
    plugin: Path | None = None
    user: str | None = None
    folder: Path | None = None


def write_broker_folder(
    folder: Path,
    authority: Authority,
    federation: str,
    hosts: Sequence[str],
    now: datetime,
    *,
    place: BrokerPlace | None = None,
    wanted: WantedAccess | None = None,
    lifetime: timedelta = SERVER_LIFETIME,
) -> None:
    """Write everything that the broker needs into `folder`, which must hold no broker's configuration.

    `hosts` are the names and addresses by which members reach it. Stopped half way, it is written again
    by the next call. Raises InvalidInputError.
    """
    if (folder / CONFIGURATION_FILE).exists():
        raise InvalidInputError(f"{folder} holds a broker's configuration already; use it, or another folder")
    text = configuration(folder.resolve(), place or BrokerPlace())
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    renew_broker_certificate(folder, authority, hosts, now, lifetime)
    write_new_file(folder / AUTHORITY_FILE, authority.certificate_pem)
    write_new_file(folder / LIST_FILE, revocation_list(authority.folder))
    rules = first_rules(federation, wanted or WantedAccess())
    write_new_file(folder / RULES_FILE, rules, private=True)
    write_new_file(folder / CONFIGURATION_FILE, text.encode())


def renew_broker_certificate(
    folder: Path,
    authority: Authority,
    hosts: Sequence[str],
    now: datetime,
    lifetime: timedelta = SERVER_LIFETIME,
) -> None:
    """Write a new key and certificate for the broker. Raises InvalidInputError."""
    key = new_tls_key()
    certificate = issue_server_certificate(authority, public_pem(key), hosts, now, lifetime)
    write_new_file(folder / KEY_FILE, key, private=True)
    write_new_file(folder / CERTIFICATE_FILE, certificate)


def install_revocation_list(folder: Path, revocations: bytes) -> bool:
    """Put a new revocation list in its place; return whether a broker of this machine was told of it."""
    write_new_file(folder / LIST_FILE, revocations)
    return reload_broker(folder)


def reload_broker(folder: Path) -> bool:
    """Tell the broker of `folder` to read its files again; False where none runs on this machine."""
    try:
        identifier = int((folder / PID_FILE).read_text())
        # What a broker left that was killed may be the number of another program by now.
        if Path(f"/proc/{identifier}/comm").read_text().strip() != "mosquitto":
            return False
        os.kill(identifier, signal.SIGHUP)
    except (OSError, ValueError):
        return False
    return True


def find_plugin() -> Path:
    """Return where Mosquitto's plugin lies on this machine. Raises InvalidInputError."""
    for folder in _PLUGIN_FOLDERS:
        for depth in _PLUGIN_DEPTHS:
            for found in sorted(Path(folder).glob(f"{depth}{PLUGIN}")):
                return found
    raise InvalidInputError(
        f"{PLUGIN} is not on this machine; install Mosquitto 2 (Debian: apt install mosquitto), or say "
        "where it lies on the broker's machine: --plugin PATH"
    )


def configuration(folder: Path, place: BrokerPlace) -> str:
    """Return the text of mosquitto.conf. Raises InvalidInputError for a path that cannot stand in it."""
    folder = place.folder or folder
    plugin = place.plugin or find_plugin()
    for path in (folder, plugin):
        # A line of the configuration is its key, a blank, and all the rest without blanks around it.
        if not str(path).isprintable() or str(path) != str(path).strip():
            raise InvalidInputError(
                f"{str(path)!r} cannot stand in mosquitto.conf; take a path that is plain text"
            )
    user = place.user or pwd.getpwuid(os.geteuid()).pw_name
    return _CONFIGURATION.format(folder=folder, plugin=plugin, user=user, port=place.port)


def first_rules(federation: str, wanted: WantedAccess) -> bytes:
    """Return the plugin's file as it is before the aggregator has connected for the first time."""
    roles = wanted_roles(federation, wanted)
    content = {
        # Somebody of whom the plugin knows nothing may show a certificate: one that was revoked.
        "defaultACLAccess": {
            "publishClientSend": False,
            "publishClientReceive": False,
            "subscribe": False,
            "unsubscribe": True,
        },
        "clients": [
            {"username": client, "roles": [{"rolename": role.name}]} for client, role in roles.items()
        ],
        "groups": [],
        "roles": [{"rolename": role.name, "acls": rules_of(role)} for role in roles.values()],
    }
    return msgspec.json.format(msgspec.json.encode(content), indent=2)


_CONFIGURATION = """\
# The broker of a federation: mosquitto -c {folder}/mosquitto.conf

# Started by root it becomes this user, to whom the files here have to belong.
user {user}
pid_file {folder}/mosquitto.pid
log_dest stderr

# Who may do what. The aggregator keeps it equal to the federation's members while the broker runs;
# all that the plugin is not told is forbidden.
allow_anonymous false
plugin {plugin}
plugin_opt_config_file {folder}/dynamic-security.json

# A client is who its certificate says: its common name is a site, "aggregator", or an invitation.
listener {port}
cafile {folder}/ca.pem
certfile {folder}/broker.pem
keyfile {folder}/broker-key.pem
crlfile {folder}/crl.pem
require_certificate true
use_identity_as_username true
tls_version tlsv1.2

# The same limits as in deploy/mosquitto.conf, which says why; but no memory_limit. Together with the plugin,
# Mosquitto 2.0.11 counts memory below zero after a few changes of the rules, and then accepts no connection.
persistence true
persistence_location {folder}/
autosave_interval 60
autosave_on_changes false
max_queued_messages 0
max_queued_bytes 268435456
max_packet_size 262144
max_inflight_messages 20
persistent_client_expiration 30d
"""
