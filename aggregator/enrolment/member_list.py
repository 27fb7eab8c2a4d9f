"""The members as `fedmedclip federation list` shows them: by the roster, and what the aggregator heard."""

from typing import Literal

import msgspec

from fedmedclip.aggregator.control import read_status
from fedmedclip.aggregator.enrolment.folder import FederationFolder
from fedmedclip.protocol.errors import FedMedClipError
from fedmedclip.protocol.signature import fingerprint


class MemberRow(msgspec.Struct, frozen=True):
    """A member, or one that was. Times are seconds since 1970; `key` is the fingerprint of its signing key.

    `seen_seconds` have passed since it was last heard (None: not since the aggregator started, or that does
    not run); `software` is the version that it said it runs.
    """

    site: str
    state: Literal["member", "revoked"]
    key: str
    certificate_ends: int
    most_samples: int
    since: int
    approved_by: str
    seen_seconds: float | None
    software: str
    revoked_at: int | None
    reason: str


def member_rows(folder: FederationFolder) -> list[MemberRow]:
    """Return every site that is or was a member, in the order in which they came. Raises StorageError."""
    try:
        status = {member.site: member for member in read_status(folder.configuration_file).members}
    except FedMedClipError:
        # No run has begun, or the aggregator is busy: the roster can be read all the same.
        status = {}
    rows = []
    for site, member in folder.roster().members.by_site.items():
        heard = status.get(site)
        rows.append(
            MemberRow(
                site,
                "member" if member.active else "revoked",
                fingerprint(member.public_key).hex(),
                member.valid_until,
                member.most_samples,
                member.since,
                member.approved_by,
                None if heard is None else heard.seconds,
                "" if heard is None else heard.software,
                member.revoked_at,
                member.reason,
            )
        )
    return rows
