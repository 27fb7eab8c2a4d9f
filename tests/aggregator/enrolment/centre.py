"""A founded federation for the tests, and the hospital's side in a few lines."""

import hashlib
import shutil
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from fedmedclip.aggregator.authority.broker_files import BrokerPlace
from fedmedclip.aggregator.enrolment.decisions import Approval, approve
from fedmedclip.aggregator.enrolment.folder import FederationFolder, FederationSettings, open_folder
from fedmedclip.aggregator.enrolment.founding import Founding, found_federation
from fedmedclip.aggregator.enrolment.invitations import invite
from fedmedclip.protocol.certificates import certificate_request, new_tls_key
from fedmedclip.protocol.enrolment.invitation import Invitation
from fedmedclip.protocol.enrolment.request import Request, encode_request
from fedmedclip.protocol.signature import SigningKey, new_signing_key
from tests.edge_client.conftest import write_tiny_bundle

FEDERATION = "brain-mri"
PASSPHRASE = "correct horse battery staple"
NOW = time.time()
PLUGIN = Path("/usr/lib/mosquitto_dynamic_security.so")


def found(home: Path, port: int = 18883, place: BrokerPlace | None = None) -> FederationFolder:
    """Found a federation in `home`/centre, with a bundle inside it."""
    folder = home / "centre"
    write_tiny_bundle(folder / "bundle")
    settings = FederationSettings(FEDERATION, "127.0.0.1", port)
    founding = Founding(
        settings, PASSPHRASE, folder / "bundle", rounds=3, place=place or BrokerPlace(plugin=PLUGIN)
    )
    return found_federation(folder, founding, datetime.fromtimestamp(NOW, UTC))[0]


def copy_of(folder: FederationFolder, home: Path) -> FederationFolder:
    """Return a federation as that one, of its own."""
    shutil.copytree(folder.path, home / "centre")
    return open_folder(home / "centre")


@dataclass
class Hospital:
    """The keys of a site, and the messages that it makes with them."""

    name: str = "hospital-a"
    key: SigningKey = field(default_factory=new_signing_key)
    tls_key: bytes = field(default_factory=new_tls_key)

    def certificate_request(self) -> bytes:
        """The request for its TLS certificate, in DER."""
        return certificate_request(self.tls_key, self.name)

    def request(self, invitation: Invitation, at: float = NOW, **changes: object) -> bytes:
        """Its request to join."""
        values: dict[str, object] = {
            "federation": invitation.federation,
            "site": self.name,
            "invitation": bytes.fromhex(invitation.number),
            "public_key": self.key.public_key,
            "certificate_request": self.certificate_request(),
            "samples": 120,
            "software": "0.2.0",
            "at": int(at),
        } | changes
        return encode_request(Request(**values), bytes.fromhex(invitation.token), self.key)  # type: ignore[arg-type]


def invitation_to(folder: FederationFolder, site: str = "hospital-a", **options: object) -> Invitation:
    return invite(folder, site, PASSPHRASE, NOW, invited_by="her", **options).invitation  # type: ignore[arg-type]


def join_by_file(folder: FederationFolder, hospital: Hospital, now: float = NOW) -> Approval:
    """Let a hospital become a member, without a broker."""
    encoded = hospital.request(invitation_to(folder, hospital.name), now)
    return approve(folder, "", PASSPHRASE, now, approved_by="her", encoded=encoded)


def digest(encoded: bytes) -> bytes:
    return hashlib.sha256(encoded).digest()
