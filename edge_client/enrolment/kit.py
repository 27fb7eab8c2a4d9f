"""A site's kit: one folder with its configuration and keys, made on the box where it is used.

    site.toml            what to do; the operator may edit it
    invitation.toml      what it was made from, for its owner only
    site-state/          for its owner only:
        site.key         the key that signs its messages
        tls.pem          key and certificate with which it connects to the broker, once it is approved
        tls-request.pem  the key for which a certificate was asked
        ca.pem           the federation's certificate authority
        roster           who is a member
        request          what was asked, until the answer is here
        approval         the number of the invitation with which the site became a member

Whatever is here already is kept: a kit that was half made, or waits for its answer, is gone on with.
"""

import time
from dataclasses import dataclass
from pathlib import Path

from fedmedclip.edge_client.enrolment.site_toml import STATE, site_toml
from fedmedclip.edge_client.site.credentials import Credentials
from fedmedclip.edge_client.site.state import SiteState
from fedmedclip.protocol.certificates import certificate_fingerprint, private_pem, read_certificate
from fedmedclip.protocol.enrolment.answer import open_answer
from fedmedclip.protocol.enrolment.invitation import Invitation, invitation_text, read_invitation
from fedmedclip.protocol.enrolment.request import ReceivedRequest, Request, encode_request, open_request
from fedmedclip.protocol.enrolment.token import enrolment_key
from fedmedclip.protocol.errors import InvalidInputError, MessageError
from fedmedclip.protocol.new_files import write_new_file
from fedmedclip.protocol.private_files import make_private_folder
from fedmedclip.protocol.signature import load_or_create_signing_key
from fedmedclip.protocol.text_files import read_text_file

_OURS = frozenset(
    {"site.key", "site.db", "tls.pem", "tls-request.pem", "ca.pem", "roster", "request", "approval", "lock"}
)


@dataclass(frozen=True)
class Kit:
    """Where the parts of a kit lie."""

    folder: Path

    @property
    def configuration(self) -> Path:
        """The site.toml."""
        return self.folder / "site.toml"

    @property
    def invitation(self) -> Path:
        """The invitation that it was made from."""
        return self.folder / "invitation.toml"

    @property
    def state(self) -> Path:
        """The site's state folder."""
        return self.folder / STATE

    @property
    def credentials(self) -> Credentials:
        """Key and certificate for the broker."""
        return Credentials(self.state)

    @property
    def request(self) -> Path:
        """The request that was made and is not answered yet."""
        return self.state / "request"

    @property
    def roster(self) -> Path:
        """The roster as it was seen last."""
        return self.state / "roster"

    @property
    def approval(self) -> Path:
        """The number of the invitation with which the site became a member."""
        return self.state / "approval"

    def approved_by(self, invitation: Invitation) -> bool:
        """Whether the site became a member with this invitation, and not with an earlier one."""
        return self.approval.exists() and self.approval.read_text() == invitation.number


def read_invitation_file(path: Path) -> Invitation:
    """Read an invitation, which may have expired. Raises InvalidInputError for one that cannot be used."""
    where = f"invitation {path}"
    invitation = read_invitation(read_text_file(path, "invitation"), where)
    certificate = read_certificate(invitation.authority.encode(), where)
    if certificate_fingerprint(certificate).hex() != invitation.authority_sha256:
        raise InvalidInputError(
            f"{where} names another certificate authority than it holds; ask for a new one"
        )
    return invitation


def make_kit(kit: Kit, invitation: Invitation, data: Path | None, bundle: Path | None, beside: Path) -> None:
    """Make what is missing of a kit but for the request: keys, configuration.

    Without `bundle` it is looked for here and in the folder `beside`. Raises InvalidInputError when the
    folder holds the kit of another site, or data or bundle are neither named nor found.
    """
    kit.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    make_private_folder(kit.state, _OURS)
    if kit.invitation.exists():
        _replace_invitation(kit, invitation)
    # First, for without its token nothing of the rest can be gone on with.
    write_new_file(kit.invitation, invitation_text(invitation).encode(), private=True)
    load_or_create_signing_key(kit.state / "site.key")
    # A key without a database is what is left of a site, not the beginning of one.
    SiteState(kit.state / "site.db").close()
    write_new_file(kit.state / "ca.pem", invitation.authority.encode())
    if not kit.configuration.exists():
        if data is None:
            raise InvalidInputError("Missing option '--data': the site's images (see fedmedclip join --help)")
        text = site_toml(invitation, kit.folder, data, _bundle_of(invitation, bundle, beside))
        write_new_file(kit.configuration, text.encode())


def pending_request(kit: Kit) -> ReceivedRequest:
    """Return the request that a kit keeps until it is answered. Raises InvalidInputError when damaged."""
    try:
        return open_request(kit.request.read_bytes())
    except MessageError as error:
        raise InvalidInputError(f"{kit.request} is damaged ({error}); remove it, and join again") from error


def make_request(kit: Kit, invitation: Invitation, samples: int, software: str) -> None:
    """Make the request of a kit and keep it; `samples` is how many labelled images there are."""
    token = bytes.fromhex(invitation.token)
    key = load_or_create_signing_key(kit.state / "site.key")
    request = Request(
        federation=invitation.federation,
        site=invitation.site,
        invitation=bytes.fromhex(invitation.number),
        public_key=key.public_key,
        certificate_request=kit.credentials.ask(invitation.site),
        samples=samples,
        software=software,
        at=int(time.time()),
    )
    encoded = encode_request(request, token, key)
    write_new_file(kit.request, encoded, private=True)


def take_answer(kit: Kit, invitation: Invitation, encoded: bytes) -> None:
    """Take the coordinator's answer to the kit's request; the site may start when this returns.

    Raises MessageError for what is not the coordinator's answer to this request, InvalidInputError when it
    says no.
    """
    request = pending_request(kit)
    answer, roster = open_answer(encoded, bytes.fromhex(invitation.coordinator_key), request.digest)
    if not answer.accepted:
        # The same question would have the same answer; another may be asked, say by the right clock.
        kit.request.unlink()
        raise InvalidInputError(
            f"the coordinator of {invitation.federation!r} refused the request of {invitation.site}: "
            f"{answer.reason or 'no reason was given'}"
        )
    if roster is not None:
        write_new_file(kit.roster, roster.encoded)
    authority = read_certificate(invitation.authority.encode(), "the invitation's authority")
    kit.credentials.install(answer.certificate, invitation.site, authority)
    # Last: a kill before leaves a request that the same answer settles.
    write_new_file(kit.approval, invitation.number.encode())
    kit.request.unlink()


def knocking_credentials(kit: Kit, invitation: Invitation) -> Path:
    """Write key and certificate with which the holder of the invitation may knock at the broker."""
    path = kit.state / "knocking.pem"
    pem = private_pem(enrolment_key(bytes.fromhex(invitation.token)))
    write_new_file(path, pem + invitation.certificate.encode(), private=True)
    return path


def _bundle_of(invitation: Invitation, given: Path | None, beside: Path) -> Path:
    """Return the bundle's folder: the one that was given, else `bundle` here or beside the invitation."""
    if given is not None:
        return given
    for folder in (Path("bundle"), beside / "bundle"):
        if (folder / "manifest.json").exists():
            return folder
    raise InvalidInputError(
        "Missing option '--bundle': the folder of the federation's bundle, which the coordinator gives you "
        f"(digest {invitation.bundle[:16]})"
    )


def _replace_invitation(kit: Kit, invitation: Invitation) -> None:
    """Let a kit be used with a new invitation to the same site, as after one that expired unused."""
    before = read_invitation_file(kit.invitation)
    if before.number == invitation.number:
        return
    for name in ("federation", "site"):
        if getattr(before, name) != getattr(invitation, name):
            raise InvalidInputError(
                f"{kit.folder} is the kit of {before.site} in {before.federation}, the invitation is to "
                f"{invitation.site} in {invitation.federation}; name another folder with --folder"
            )
    if before.coordinator_key != invitation.coordinator_key and kit.configuration.exists():
        text = kit.configuration.read_text(encoding="utf-8")
        replaced = text.replace(before.coordinator_key, invitation.coordinator_key)
        write_new_file(kit.configuration, replaced.encode())
    kit.request.unlink(missing_ok=True)
