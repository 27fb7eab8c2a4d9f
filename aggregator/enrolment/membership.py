"""What changes for members: one is revoked, weighs less, or the coordinator signs with another key."""

import os
from datetime import UTC, datetime
from pathlib import Path

from fedmedclip.aggregator.authority.access_rules import AGGREGATOR
from fedmedclip.aggregator.authority.broker_files import LIST_FILE, install_revocation_list
from fedmedclip.aggregator.authority.certificate_authority import (
    open_authority,
    renew_revocation_list,
    revocation_list,
    revoke,
)
from fedmedclip.aggregator.authority.issued import IssuedCertificate, certificates_of
from fedmedclip.aggregator.enrolment.folder import NEXT_KEY_FILE, FederationFolder
from fedmedclip.aggregator.enrolment.signed_bundle import signed_bundle
from fedmedclip.protocol.enrolment.enrolment_topics import CERTIFICATE_PREFIX
from fedmedclip.protocol.errors import BundleError, InvalidInputError
from fedmedclip.protocol.roster.chain import Roster
from fedmedclip.protocol.roster.entries import Admitted, KeyRotated, Renewed, Revoked, WeightLimited
from fedmedclip.protocol.signature import load_or_create_signing_key


def revoke_member(folder: FederationFolder, site: str, reason: str, now: float) -> Roster:
    """Let a site be a member no more; the running aggregator refuses its next message.

    Its certificates are revoked by `revoke_certificates`, which needs the passphrase. Raises
    InvalidInputError when it is no member.
    """
    with folder.changing():
        return folder.append(Revoked(site, reason), now)


def limit_weight(folder: FederationFolder, site: str, most_samples: int, now: float) -> Roster:
    """Let a member's updates weigh at most as so many images. Raises InvalidInputError."""
    with folder.changing():
        return folder.append(WeightLimited(site, most_samples), now)


def rotate_key(folder: FederationFolder, now: float) -> tuple[Roster, Path | None]:
    """Make a new coordinator's key, and append to the roster that it signs from now on.

    Returns the roster, and the bundle's folder, signed anew, where the coordinator signs that. Stopped at
    any moment, the folder has a roster and the key that signs it.
    """
    with folder.changing():
        folder.key()
        following = folder.path / NEXT_KEY_FILE
        # One that a rotation left which was stopped before it was in the roster is as good as a new one.
        key = load_or_create_signing_key(following)
        if key.public_key in folder.roster().coordinator_keys:
            raise InvalidInputError(f"{following} is a key that was in use before; delete it")
        roster = folder.append(KeyRotated(key.public_key), now, key)
        os.replace(following, folder.key_file)
    try:
        return roster, signed_bundle(folder).folder
    except (BundleError, InvalidInputError):
        # None is there yet, or another signs it.
        return roster, None


def revoke_certificates(folder: FederationFolder, passphrase: str, now: float) -> list[str]:
    """Put the certificates on the revocation list that no member has any more, and tell the broker.

    Returns whose they were. To be called under the lock. Raises InvalidInputError for a wrong passphrase.
    """
    authority = open_authority(folder.authority, passphrase)
    moment = datetime.fromtimestamp(now, UTC)
    roster = folder.roster()
    found = left_over_certificates(folder, roster, moment)
    for certificate in found:
        member = roster.members.by_site.get(certificate.common_name)
        reason = "never in the roster" if member is None else member.reason or "followed by another"
        revoke(authority, certificate.serial_number, reason, moment)
    if not (folder.authority / LIST_FILE).exists():
        renew_revocation_list(authority, moment)
    # Also where nothing is new: a broker's copy that was lost, or is older, is mended.
    publish_revocations(folder)
    return sorted({certificate.common_name for certificate in found})


def left_over_certificates(
    folder: FederationFolder, roster: Roster, moment: datetime
) -> list[IssuedCertificate]:
    """Return the valid certificates of sites that are in no member's hands: they are to be revoked."""
    in_use = certificates_in_use(roster)
    return [
        certificate
        for certificate in certificates_of(folder.authority)
        if certificate.is_valid(moment)
        and certificate.fingerprint not in in_use
        and not (certificate.server or certificate.common_name == AGGREGATOR)
        and not certificate.common_name.startswith(CERTIFICATE_PREFIX)
    ]


def publish_revocations(folder: FederationFolder) -> bool:
    """Give the broker's folder a newer list; return whether a broker on this machine was told of one."""
    path, newest = folder.broker / LIST_FILE, revocation_list(folder.authority)
    if not folder.broker.is_dir() or (path.exists() and path.read_bytes() == newest):
        return False
    return install_revocation_list(folder.broker, newest)


def certificates_in_use(roster: Roster) -> frozenset[bytes]:
    """Return the SHA-256 of every certificate that members were given since they are members."""
    by_site: dict[str, set[bytes]] = {}
    for record in roster.records:
        match record.entry:
            case Admitted(site=site, certificate=certificate):
                by_site[site] = {certificate}
            case Renewed(site=site, certificate=certificate):
                by_site[site].add(certificate)
            case Revoked(site=site):
                by_site[site] = set()
    return frozenset().union(*by_site.values())
