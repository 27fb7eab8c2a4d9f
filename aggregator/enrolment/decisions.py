"""What becomes of a request: it is kept, approved, or refused. Each invitation gets one answer.

A request that came over the broker or by file is looked at in the same way. An approval that was stopped half
way is finished when it is given again.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
from cryptography import x509

from fedmedclip.aggregator.authority.certificate_authority import (
    CLOCK_SKEW,
    issue_client_certificate,
    open_authority,
)
from fedmedclip.aggregator.authority.issued import ISSUED
from fedmedclip.aggregator.enrolment.answers import answer_in
from fedmedclip.aggregator.enrolment.folder import FederationFolder
from fedmedclip.aggregator.enrolment.invitations import KeptInvitation, read_invitations
from fedmedclip.protocol.certificates import (
    certificate_fingerprint,
    in_der,
    read_certificate,
    requested_key,
)
from fedmedclip.protocol.enrolment.answer import Answer, encode_answer
from fedmedclip.protocol.enrolment.invitation import moment
from fedmedclip.protocol.enrolment.request import ReceivedRequest, open_request
from fedmedclip.protocol.errors import InvalidInputError, MessageError, StorageError
from fedmedclip.protocol.new_files import write_new_file
from fedmedclip.protocol.roster.chain import Roster
from fedmedclip.protocol.roster.entries import Admitted
from fedmedclip.protocol.signature import SigningKey

# An answer with more is too large for one message at many brokers.
MOST_ROSTER_BYTES = 65536


@dataclass(frozen=True)
class PendingRequest:
    """A request that waits, with the invitation that it answers."""

    received: ReceivedRequest
    kept: KeptInvitation

    @property
    def number(self) -> str:
        """What names both."""
        return self.kept.number

    @property
    def most_samples(self) -> int:
        """What the site may weigh, as things are: what its invitation says, else what it asks for."""
        return self.kept.most_samples or self.received.request.samples


@dataclass(frozen=True)
class Approval:
    """What an approval gave: the whole answer for a file, and the roster."""

    site: str
    answer: bytes
    roster: Roster
    most_samples: int
    fetchable: bool
    """Whether the newcomer can still fetch the answer over the broker."""


def pending_requests(folder: FederationFolder) -> list[PendingRequest]:
    """Return the requests that nobody has answered, the oldest invitation first. Raises StorageError."""
    found = []
    for kept in read_invitations(folder):
        if kept.answered or not kept.requested:
            continue
        path = folder.requests / f"{kept.number}.request"
        try:
            found.append(PendingRequest(open_request(path.read_bytes()), kept))
        except (OSError, MessageError) as error:
            raise StorageError(f"request {path} cannot be read ({error}); delete it") from error
    return found


def read_request_file(path: Path) -> bytes:
    """Return the bytes of a request that came as a file. Raises InvalidInputError."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidInputError(f"request {path} cannot be read ({error.strerror})") from error


def take_request(folder: FederationFolder, encoded: bytes, now: float, where: str) -> PendingRequest:
    """Keep a request, in the place of an earlier one with the same invitation; to be called under the lock.

    Raises InvalidInputError, which calls the request `where`, when no open invitation stands behind it, or
    one of the clocks is wrong.
    """
    try:
        received = open_request(encoded)
    except MessageError as error:
        raise InvalidInputError(f"{where}: {error}") from error
    request, number = received.request, received.number
    if request.federation != folder.settings.name:
        raise InvalidInputError(
            f"{where} is for the federation {request.federation!r}, this is {folder.settings.name!r}"
        )
    kept = next((kept for kept in read_invitations(folder) if kept.number == number), None)
    if kept is None or not received.holds(bytes.fromhex(kept.invitation.token)):
        raise InvalidInputError(f"{where} comes with an invitation that this federation has not given away")
    if request.site != kept.invitation.site:
        raise InvalidInputError(
            f"{where} is of {request.site!r}, its invitation is for {kept.invitation.site!r}; refuse it"
        )
    if kept.answered:
        raise InvalidInputError(
            f"{where} comes with an invitation that was used or taken back ({number}); invite the site again"
        )
    if now > kept.invitation.expires:
        raise InvalidInputError(
            f"{where} comes with an invitation that expired at {moment(kept.invitation.expires)}, and it is "
            f"{moment(now)}; invite the site again"
        )
    refuse_wrong_clock(request.at, kept.invitation.made, now, where)
    try:
        requested_key(request.certificate_request, request.site)
    except InvalidInputError as error:
        raise InvalidInputError(f"{where}: {error}") from error
    write_new_file(folder.requests / f"{number}.request", encoded, private=True)
    return PendingRequest(received, kept)


def refuse_wrong_clock(at: int, made: int, now: float, where: str) -> None:
    """Raise InvalidInputError when a request was made before its invitation, or after now.

    A certificate is good from an hour before it is made: so much one clock may differ from the other.
    """
    skew = CLOCK_SKEW.total_seconds()
    if at > now + skew or at < made - skew:
        raise InvalidInputError(
            f"{where} was made at {moment(at)} by the site's clock; here it is {moment(now)}, and its "
            f"invitation was made at {moment(made)}: one clock is wrong; set it, and let the site ask again"
        )


def find_request(folder: FederationFolder, which: str) -> PendingRequest:
    """Return the request that waits with an invitation (its number, or the beginning of it), or of a site.

    Raises InvalidInputError when none or several are meant.
    """
    waiting = pending_requests(folder)
    found = [item for item in waiting if which in (item.number, item.kept.invitation.site)]
    found = found or [item for item in waiting if len(which) >= 4 and item.number.startswith(which)]
    if len(found) != 1:
        names = ", ".join(f"{item.kept.invitation.site} ({item.number})" for item in waiting) or "none"
        raise InvalidInputError(f"no single request is meant by {which!r}; those that wait: {names}")
    return found[0]


def approve(
    folder: FederationFolder,
    which: str,
    passphrase: str,
    now: float,
    *,
    approved_by: str,
    most_samples: int | None = None,
    encoded: bytes | None = None,
    where: str = "the request",
) -> Approval:
    """Make the site of a request a member: issue its certificate, append to the roster, write the answer.

    `encoded` is a request that came as a file, `where` its name. One that was approved before gets the same
    answer. Raises InvalidInputError for all that is in
    the way: a name that is taken, a key that is another site's, a wrong passphrase.
    """
    with folder.changing():
        if encoded is not None:
            pending = take_request(folder, encoded, now, where)
            if which not in ("", pending.number, pending.kept.invitation.site):
                raise InvalidInputError(
                    f"{where} is of {pending.kept.invitation.site!r} ({pending.number}), not of {which!r}"
                )
        elif (given := _given_before(folder, which, now)) is not None:
            return given
        else:
            pending = find_request(folder, which)
        request = pending.received.request
        key, roster = folder.key(), folder.roster()
        weight = most_samples or pending.most_samples
        member = roster.members.active(request.site)
        if member is not None and member.public_key == request.public_key:
            certificate = certificate_with(folder, member.certificate)
            weight = member.most_samples
        else:
            admitted = Admitted(request.site, request.public_key, bytes(32), 0, weight, approved_by[:128])
            # Before a certificate is issued: the roster may refuse name or key.
            roster.with_entry(admitted, key, int(now))
            issued = issue_client_certificate(
                open_authority(folder.authority, passphrase),
                request.site,
                request.certificate_request,
                datetime.fromtimestamp(now, UTC),
                timedelta(days=folder.settings.certificate_days),
            )
            certificate = read_certificate(issued, "the new certificate")
            admitted = msgspec.structs.replace(
                admitted,
                certificate=certificate_fingerprint(certificate),
                valid_until=int(certificate.not_valid_after_utc.timestamp()),
            )
            roster = roster.with_entry(admitted, key, int(now))
            write_new_file(folder.roster_file, roster.encoded)
        answer = Answer(
            folder.settings.name, request.site, pending.received.digest, True, "", in_der(certificate),
            roster.encoded,
        )  # fmt: skip
        whole = encode_answer(answer, key)
        _write_answer(folder, pending.number, answer, key)
        fetchable = now <= pending.kept.invitation.expires
        return Approval(request.site, whole, roster, weight, fetchable)


def refuse(
    folder: FederationFolder, which: str, now: float, reason: str
) -> tuple[KeptInvitation, bytes | None]:
    """Refuse a request, or take back an invitation that nobody has used; return it, and the answer if a
    request was there. Raises InvalidInputError when neither is meant.
    """
    with folder.changing():
        kept = find_invitation(folder, which, now)
        request = bytes(32)
        if kept.requested:
            request = find_request(folder, kept.number).received.digest
        answer = Answer(
            folder.settings.name, kept.invitation.site, request, False, reason or "refused", b"", b""
        )
        key = folder.key()
        _write_answer(folder, kept.number, answer, key)
        return kept, encode_answer(answer, key) if kept.requested else None


def find_invitation(folder: FederationFolder, which: str, now: float) -> KeptInvitation:
    """Return the unanswered invitation of a number or site. Raises InvalidInputError."""
    waiting = [
        kept for kept in read_invitations(folder) if kept.is_open(now) or kept.state(now) == "requested"
    ]
    found = [kept for kept in waiting if which in (kept.number, kept.invitation.site)]
    found = found or [kept for kept in waiting if len(which) >= 4 and kept.number.startswith(which)]
    if len(found) != 1:
        names = ", ".join(f"{kept.invitation.site} ({kept.number})" for kept in waiting) or "none"
        raise InvalidInputError(f"no single invitation is meant by {which!r}; those that are open: {names}")
    return found[0]


def certificate_with(folder: FederationFolder, fingerprint: bytes) -> x509.Certificate:
    """Return the certificate of that SHA-256 that was issued here. Raises StorageError."""
    for path in (folder.authority / ISSUED).glob("*.pem"):
        certificate = read_certificate(path.read_bytes(), str(path))
        if certificate_fingerprint(certificate) == fingerprint:
            return certificate
    raise StorageError(
        f"{folder.authority / ISSUED} lacks the certificate {fingerprint.hex()}, which the roster names; "
        "restore the folder from a backup"
    )


def _given_before(folder: FederationFolder, which: str, now: float) -> Approval | None:
    """Return the approval that a member was given before, while none of its requests waits."""
    named = [kept for kept in read_invitations(folder) if which in (kept.number, kept.invitation.site)]
    if not named or not named[-1].answered:
        return None
    encoded = (folder.answers / f"{named[-1].number}.answer").read_bytes()
    answer, roster = answer_in(encoded), folder.roster()
    member = roster.members.active(answer.site)
    if not answer.accepted or member is None:
        return None
    fetchable = now <= named[-1].invitation.expires
    return Approval(answer.site, encoded, roster, member.most_samples, fetchable)


def _write_answer(folder: FederationFolder, number: str, answer: Answer, key: SigningKey) -> None:
    """Write the answer as it is published, and drop the request."""
    if len(answer.roster) > MOST_ROSTER_BYTES:
        answer = msgspec.structs.replace(answer, roster=b"")
    write_new_file(folder.answers / f"{number}.answer", encode_answer(answer, key), private=True)
    (folder.requests / f"{number}.request").unlink(missing_ok=True)
