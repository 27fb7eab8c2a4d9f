"""Invitations as the centre keeps them: whom it invited, until when, and what became of it."""

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

import msgspec

from fedmedclip.aggregator.authority.certificate_authority import issue_client_certificate, open_authority
from fedmedclip.aggregator.enrolment.folder import FederationFolder
from fedmedclip.aggregator.enrolment.signed_bundle import signed_bundle
from fedmedclip.protocol.certificates import certificate_fingerprint, certificate_request, private_pem
from fedmedclip.protocol.enrolment.enrolment_topics import CERTIFICATE_PREFIX
from fedmedclip.protocol.enrolment.invitation import (
    FORMAT,
    Invitation,
    invitation_text,
    moment,
    read_invitation,
    sign_invitation,
)
from fedmedclip.protocol.enrolment.token import enrolment_key, invitation_number, new_token
from fedmedclip.protocol.errors import InvalidInputError, StorageError
from fedmedclip.protocol.new_files import write_new_file
from fedmedclip.protocol.topics import check_name

State = Literal["open", "requested", "answered", "expired"]


class _Kept(msgspec.Struct, frozen=True):
    text: str
    most_samples: int | None
    invited_by: str


@dataclass(frozen=True)
class KeptInvitation:
    """An invitation that was given away; `most_samples` None: as many as its site asks for."""

    invitation: Invitation
    most_samples: int | None
    invited_by: str
    requested: bool
    answered: bool

    @property
    def number(self) -> str:
        """What names it."""
        return self.invitation.number

    def state(self, now: float) -> State:
        """Return how it stands."""
        if self.answered:
            return "answered"
        if self.requested:
            return "requested"
        return "expired" if now > self.invitation.expires else "open"

    def is_open(self, now: float) -> bool:
        """Whether a request that comes now can be answered."""
        return not self.answered and now <= self.invitation.expires


def invite(
    folder: FederationFolder,
    site: str,
    passphrase: str,
    now: float,
    *,
    invited_by: str,
    lifetime: timedelta | None = None,
    most_samples: int | None = None,
) -> KeptInvitation:
    """Invite a site: keep the invitation, and return it.

    Raises InvalidInputError for a name that is reserved, a member's, or invited already; for a bundle that
    sites would refuse; and for a wrong passphrase.
    """
    check_name("site", site)
    bundle = signed_bundle(folder).digest
    with folder.changing():
        key = folder.key()
        if folder.roster().members.active(site) is not None:
            raise InvalidInputError(
                f"the name {site!r} is taken by a member; revoke that first, or choose another name"
            )
        for kept in read_invitations(folder):
            if kept.invitation.site == site and kept.is_open(now):
                raise InvalidInputError(
                    f"{site!r} is invited already, until {moment(kept.invitation.expires)}; take that back "
                    f"first: fedmedclip federation refuse {kept.number}"
                )
        authority = open_authority(folder.authority, passphrase)
        token = new_token()
        number = invitation_number(token).hex()
        name = f"{CERTIFICATE_PREFIX}{number}"
        lasts = lifetime or timedelta(days=folder.settings.invitation_days)
        request = certificate_request(private_pem(enrolment_key(token)), name)
        certificate = issue_client_certificate(authority, name, request, _moment(now), lasts)
        invitation = Invitation(
            format=FORMAT,
            federation=folder.settings.name,
            site=site,
            broker_host=folder.settings.broker_host,
            broker_port=folder.settings.broker_port,
            coordinator_key=key.public_key.hex(),
            authority_sha256=certificate_fingerprint(authority.certificate).hex(),
            bundle=bundle.hex(),
            made=int(now),
            expires=int(now + lasts.total_seconds()),
            token=token.hex(),
            authority=authority.certificate_pem.decode(),
            certificate=certificate.decode(),
        )
        text = invitation_text(sign_invitation(invitation, key))
        content = msgspec.json.encode(_Kept(text, most_samples, invited_by))
        write_new_file(folder.invitations / f"{number}.json", content, private=True)
        return read_kept(folder, number)


def read_invitations(folder: FederationFolder) -> list[KeptInvitation]:
    """Return every invitation that was given away, the oldest first. Raises StorageError."""
    found = [read_kept(folder, path.stem) for path in folder.invitations.glob("*.json")]
    return sorted(found, key=lambda kept: (kept.invitation.made, kept.number))


def read_kept(folder: FederationFolder, number: str) -> KeptInvitation:
    """Return the invitation of that number. Raises StorageError when it cannot be read."""
    path = folder.invitations / f"{number}.json"
    try:
        kept = msgspec.json.decode(path.read_bytes(), type=_Kept)
        invitation = read_invitation(kept.text, str(path))
    except (OSError, msgspec.MsgspecError, InvalidInputError) as error:
        raise StorageError(f"invitation {path} cannot be read ({error}); restore it, or delete it") from error
    return KeptInvitation(
        invitation,
        kept.most_samples,
        kept.invited_by,
        request_file_exists(folder, number),
        (folder.answers / f"{number}.answer").exists(),
    )


def request_file_exists(folder: FederationFolder, number: str) -> bool:
    """Whether a request with that invitation waits for an answer."""
    return (folder.requests / f"{number}.request").exists()


def _moment(now: float) -> datetime:
    return datetime.fromtimestamp(now, UTC)


def expiry_in_words(seconds: float, now: float | None = None) -> str:
    """Return a moment, and in how many days it comes."""
    days = (seconds - (time.time() if now is None else now)) / 86400
    return f"{moment(seconds)} ({days:.0f} days)"
