"""The folder of a federation at the centre: where everything lies, and changes of it one at a time.

Command line and running aggregator both read and change it: each file is replaced whole, and what is read to
be changed is read under the folder's lock. `docs/reference/federation-folder.md` lists the files.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from fedmedclip.aggregator.configuration import AggregatorConfiguration
from fedmedclip.protocol.configuration import beside, read_configuration
from fedmedclip.protocol.errors import InvalidInputError, MessageError, StorageError
from fedmedclip.protocol.new_files import write_new_file
from fedmedclip.protocol.roster.chain import Roster, open_roster
from fedmedclip.protocol.roster.entries import Entry
from fedmedclip.protocol.signature import SigningKey, load_signing_key
from fedmedclip.protocol.topics import check_name

SETTINGS_FILE, CONFIGURATION_FILE = "federation.toml", "aggregator.toml"
KEY_FILE, NEXT_KEY_FILE, ROSTER_FILE = "coordinator.key", "coordinator-next.key", "roster"
_PATIENCE_SECONDS = 30.0
_LOOK_SECONDS = 0.05
Days = Annotated[int, Meta(ge=1, le=3650)]


class FederationSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What `federation.toml` says: how sites reach the broker, and how long what is issued is good.

    `name` is the federation's. Sites find the broker at `broker_host` and `broker_port`, as every invitation
    says; `broker_names` are further host names and addresses that the broker's certificate is for. An
    invitation is good for `invitation_days`, the certificate of a site and of the aggregator for
    `certificate_days`, the broker's for `broker_certificate_days`. Raises InvalidInputError for a name that
    cannot stand in a topic.
    """

    name: str
    broker_host: Annotated[str, Meta(min_length=1, max_length=253)]
    broker_port: Annotated[int, Meta(ge=1, le=65535)] = 8883
    broker_names: list[str] = []
    invitation_days: Annotated[int, Meta(ge=1, le=90)] = 7
    certificate_days: Days = 397
    broker_certificate_days: Days = 730

    def __post_init__(self) -> None:
        check_name("federation", self.name)

    @property
    def broker_hosts(self) -> list[str]:
        """All names of the broker; the aggregator may run beside it, wherever sites find it."""
        return list(dict.fromkeys([self.broker_host, *self.broker_names, "localhost", "127.0.0.1"]))


@dataclass(frozen=True)
class FederationFolder:
    """An opened folder."""

    path: Path
    settings: FederationSettings

    @property
    def configuration_file(self) -> Path:
        """The aggregator's configuration."""
        return self.path / CONFIGURATION_FILE

    @property
    def authority(self) -> Path:
        """The certificate authority's folder."""
        return self.path / "authority"

    @property
    def broker(self) -> Path:
        """The broker's folder."""
        return self.path / "broker"

    @property
    def invitations(self) -> Path:
        """Every invitation, with its token: for the owner only."""
        return self._private("invitations")

    @property
    def requests(self) -> Path:
        """What sites asked for and nobody has answered."""
        return self._private("requests")

    @property
    def answers(self) -> Path:
        """What was answered to requests."""
        return self._private("approvals")

    @property
    def key_file(self) -> Path:
        """The coordinator's signing key."""
        return self.path / KEY_FILE

    @property
    def roster_file(self) -> Path:
        """The roster."""
        return self.path / ROSTER_FILE

    def aggregator(self) -> AggregatorConfiguration:
        """Return the aggregator's configuration. Raises InvalidInputError."""
        return read_configuration(self.configuration_file, AggregatorConfiguration)

    @property
    def passphrase_file(self) -> Path | None:
        """Where the aggregator reads the authority's passphrase, if it does. Raises InvalidInputError."""
        path = self.aggregator().federation.authority_passphrase_file
        return None if path is None else beside(self.configuration_file, path)

    @property
    def bundle(self) -> Path:
        """The federation's bundle, which may not be there yet. Raises InvalidInputError."""
        return beside(self.configuration_file, self.aggregator().federation.bundle)

    def _private(self, name: str) -> Path:
        folder = self.path / name
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder

    def roster(self, known: Roster | None = None) -> Roster:
        """Return the verified roster, of which `known` is a beginning. Raises StorageError."""
        try:
            return open_roster(self.roster_file.read_bytes(), known)
        except (OSError, MessageError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise StorageError(
                f"the roster {self.roster_file} cannot be used ({reason}); restore it from a backup, or take "
                "the copy of a hospital: fedmedclip federation roster FILE --adopt"
            ) from error

    def key(self) -> SigningKey:
        """Return the coordinator's key of today. Raises InvalidInputError when others can read it, or when it
        is not the one that signs the roster.
        """
        roster, following = self.roster(), self.path / NEXT_KEY_FILE
        if following.exists() and load_signing_key(following).public_key == roster.coordinator_key:
            # A rotation ended between the roster and the key.
            os.replace(following, self.key_file)
        key = load_signing_key(self.key_file)
        if key.public_key != roster.coordinator_key:
            raise InvalidInputError(
                f"{self.key_file} is key {key.public_key.hex()}, but the roster {self.roster_file} is signed "
                f"with {roster.coordinator_key.hex()} now; restore both from the same backup"
            )
        return key

    def append(self, entry: Entry, now: float, new_key: SigningKey | None = None) -> Roster:
        """Append a record and return the roster; to be called under the lock. Raises InvalidInputError."""
        roster = self.roster().with_entry(entry, self.key(), int(now), new_key)
        write_new_file(self.roster_file, roster.encoded)
        return roster

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Within the block, nobody else changes the folder. Raises InvalidInputError when that takes long."""
        with locked(self.path):
            yield


def open_folder(path: Path) -> FederationFolder:
    """Open a federation's folder. Raises InvalidInputError when there is none."""
    settings = path / SETTINGS_FILE
    if not settings.is_file() or not (path / ROSTER_FILE).is_file():
        raise InvalidInputError(
            f"{path} holds no federation; say where it lies (--folder FOLDER), or found one: "
            "fedmedclip federation init FOLDER"
        )
    return FederationFolder(path.resolve(), read_configuration(settings, FederationSettings))


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of a federation's folder. Raises InvalidInputError when another process keeps it."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
    descriptor = os.open(path / "lock", flags, 0o600)
    try:
        until = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() >= until:
                    raise InvalidInputError(
                        f"another command is changing the federation {path}; wait until it has ended"
                    ) from error
                time.sleep(_LOOK_SECONDS)
        yield
    finally:
        os.close(descriptor)
