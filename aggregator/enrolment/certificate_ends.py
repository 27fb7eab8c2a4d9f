"""When the certificates of a federation end: its members' by the roster, and those of the centre."""

from fedmedclip.aggregator.certificate_end import CertificateEnd
from fedmedclip.aggregator.enrolment.folder import FederationFolder
from fedmedclip.aggregator.enrolment.renewal import own_certificates
from fedmedclip.protocol.roster.chain import Roster


def certificate_ends(folder: FederationFolder, roster: Roster) -> list[CertificateEnd]:
    """Return the certificates that are in use, the first to end first. Raises InvalidInputError."""
    members = roster.members.by_site.items()
    found = [CertificateEnd(site, float(member.valid_until)) for site, member in members if member.active]
    found += [CertificateEnd(own.what, own.ends) for own in own_certificates(folder)]
    return sorted(found, key=lambda certificate: (certificate.ends, certificate.whose))
