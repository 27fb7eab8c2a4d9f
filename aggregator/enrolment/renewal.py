"""Certificates that end are followed by new ones: those of members, of the aggregator and of the broker.

A member asks; the answer is the newest certificate that its roster entry names. Whoever asks again for the
same key gets the same again, so nothing has to be remembered of who was told.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509

from fedmedclip.aggregator.authority.access_rules import AGGREGATOR
from fedmedclip.aggregator.authority.broker_files import (
    CERTIFICATE_FILE as BROKER_CERTIFICATE,
)
from fedmedclip.aggregator.authority.broker_files import KEY_FILE as BROKER_KEY
from fedmedclip.aggregator.authority.broker_files import reload_broker
from fedmedclip.aggregator.authority.certificate_authority import (
    CERTIFICATE_FILE as AUTHORITY_CERTIFICATE,
)
from fedmedclip.aggregator.authority.certificate_authority import (
    issue_client_certificate,
    issue_server_certificate,
    open_authority,
)
from fedmedclip.aggregator.authority.issued import certificates_of
from fedmedclip.aggregator.enrolment.decisions import certificate_with
from fedmedclip.aggregator.enrolment.folder import FederationFolder
from fedmedclip.aggregator.enrolment.founding import CERTIFICATE_FILE, TLS_KEY_FILE
from fedmedclip.aggregator.enrolment.membership import revoke_certificates
from fedmedclip.protocol.certificates import (
    certificate_fingerprint,
    certificate_request,
    public_pem,
    read_certificate,
    read_certificate_file,
    requested_key,
)
from fedmedclip.protocol.enrolment.invitation import moment
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.new_files import write_new_file
from fedmedclip.protocol.roster.entries import Renewed

# Members ask months ahead, once; more often only who lost a key, or is hostile.
MOST_A_DAY = 4
_ENDING = ".renewal"


@dataclass(frozen=True)
class OwnCertificate:
    """A certificate of the centre: what it is for, and when it ends, in seconds since 1970."""

    what: str
    ends: float
    begins: float

    def is_due(self, now: float) -> bool:
        """Whether less than a third of its time is left."""
        return self.ends - now < (self.ends - self.begins) / 3


def given_before(folder: FederationFolder, site: str, request: bytes, now: float) -> x509.Certificate | None:
    """Return the member's certificate when it is for the key of this request and more than half its time is
    left; None when a new one has to be issued.

    `request` is PKCS #10 in DER. Raises InvalidInputError when it is not a request of that site, or the site
    is no member.
    """
    key = requested_key(request, site)
    member = folder.roster().members.active(site)
    if member is None:
        raise InvalidInputError(f"{site!r} is no member of this federation")
    certificate = certificate_with(folder, member.certificate)
    begins, ends = certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp()
    fresh = ends - now > (ends - begins) / 2
    return certificate if certificate.public_key() == key and fresh else None


def renew_member(
    folder: FederationFolder, site: str, request: bytes, passphrase: str, now: float
) -> x509.Certificate:
    """Issue a member's next certificate and append it to the roster; to be called under the lock.

    Raises InvalidInputError as `given_before` does, for a wrong passphrase, and when the site had several
    within a day.
    """
    if (known := given_before(folder, site, request, now)) is not None:
        return known
    refuse_many(folder, site, now)
    issued = issue_client_certificate(
        open_authority(folder.authority, passphrase),
        site,
        request,
        _moment(now),
        timedelta(days=folder.settings.certificate_days),
    )
    certificate = read_certificate(issued, "the new certificate")
    ends = int(certificate.not_valid_after_utc.timestamp())
    folder.append(Renewed(site, certificate_fingerprint(certificate), ends), now)
    return certificate


def refuse_many(folder: FederationFolder, site: str, now: float) -> None:
    """Raise InvalidInputError when a site had several certificates within a day."""
    since = _moment(now) - timedelta(days=1)
    recent = [
        certificate
        for certificate in certificates_of(folder.authority)
        if certificate.common_name == site and certificate.begins > since
    ]
    if len(recent) > MOST_A_DAY:
        raise InvalidInputError(f"{site!r} had {len(recent)} certificates within a day; no more today")


def keep_renewal(folder: FederationFolder, site: str, request: bytes) -> None:
    """Keep a member's request until somebody with the passphrase comes, in the place of its last."""
    path = folder.requests / f"{site}{_ENDING}"
    if not path.exists() or path.read_bytes() != request:
        write_new_file(path, request, private=True)


def waiting_renewals(folder: FederationFolder) -> list[str]:
    """Return the members that wait for a new certificate, sorted."""
    return sorted(path.stem for path in folder.requests.glob(f"*{_ENDING}"))


def renew_all(folder: FederationFolder, passphrase: str, now: float, site: str | None = None) -> list[str]:
    """Do everything for which the passphrase was missing; return what was done, a line each.

    That is members' certificates that wait (of one `site`, or all), the aggregator's and the broker's own in
    the last third of their time, and the revocation list. Raises InvalidInputError for a wrong passphrase,
    and for a site that has not asked.
    """
    with folder.changing():
        open_authority(folder.authority, passphrase)
        waiting = waiting_renewals(folder)
        if site is not None and site not in waiting:
            raise InvalidInputError(
                f"{site!r} waits for no certificate; those that do: {', '.join(waiting) or 'none'}"
            )
        done = []
        for name in waiting if site is None else [site]:
            path = folder.requests / f"{name}{_ENDING}"
            try:
                certificate = renew_member(folder, name, path.read_bytes(), passphrase, now)
            except InvalidInputError as error:
                done.append(f"{name}: not renewed: {error}")
            else:
                ends = moment(certificate.not_valid_after_utc.timestamp())
                done.append(f"{name}: certificate until {ends}")
            path.unlink()
        if site is None:
            done += [
                f"{name}: certificates are on the revocation list"
                for name in revoke_certificates(folder, passphrase, now)
            ]
            done += renew_own(folder, passphrase, now)
        return done


def own_certificates(folder: FederationFolder) -> list[OwnCertificate]:
    """Return the certificates of the centre itself, the authority's last. Raises InvalidInputError."""
    files = {
        "the aggregator": folder.path / CERTIFICATE_FILE,
        "the broker": folder.broker / BROKER_CERTIFICATE,
        "the certificate authority": folder.authority / AUTHORITY_CERTIFICATE,
    }
    return [_own(what, path) for what, path in files.items() if path.exists()]


def renew_own(folder: FederationFolder, passphrase: str, now: float) -> list[str]:
    """Renew the aggregator's and the broker's certificate in the last third of their time, for the same keys.

    Returns a line for each that was renewed. To be called under the lock. Raises InvalidInputError.
    """
    authority = open_authority(folder.authority, passphrase)
    settings, done = folder.settings, []
    by_name = {certificate.what: certificate for certificate in own_certificates(folder)}
    if (ours := by_name.get("the aggregator")) is not None and ours.is_due(now):
        request = certificate_request((folder.path / TLS_KEY_FILE).read_bytes(), AGGREGATOR)
        issued = issue_client_certificate(
            authority, AGGREGATOR, request, _moment(now), timedelta(days=settings.certificate_days)
        )
        done.append(_replaced("the aggregator", folder.path / CERTIFICATE_FILE, issued))
    if (theirs := by_name.get("the broker")) is not None and theirs.is_due(now):
        public = public_pem((folder.broker / BROKER_KEY).read_bytes())
        lifetime = timedelta(days=settings.broker_certificate_days)
        issued = issue_server_certificate(authority, public, settings.broker_hosts, _moment(now), lifetime)
        line = _replaced("the broker", folder.broker / BROKER_CERTIFICATE, issued)
        told = reload_broker(folder.broker)
        where = "" if told else f"; where the broker runs elsewhere, copy {folder.broker}, and send it SIGHUP"
        done.append(line + where)
    return done


def _replaced(what: str, path: Path, issued: bytes) -> str:
    write_new_file(path, issued)
    own = _own(what, path)
    return f"{what}: certificate until {moment(own.ends)}"


def _own(what: str, path: Path) -> OwnCertificate:
    certificate = read_certificate_file(path)
    return OwnCertificate(
        what, certificate.not_valid_after_utc.timestamp(), certificate.not_valid_before_utc.timestamp()
    )


def _moment(now: float) -> datetime:
    return datetime.fromtimestamp(now, UTC)
