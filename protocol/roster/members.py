"""Who is a member after the records of a roster: what each entry changes, and what makes no sense."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from fedmedclip.protocol.errors import InvalidInputError, MessageError
from fedmedclip.protocol.roster.entries import (
    Admitted,
    Entry,
    Founded,
    KeyRotated,
    Renewed,
    Revoked,
    WeightLimited,
)
from fedmedclip.protocol.topics import check_name


@dataclass(frozen=True)
class Member:
    """A site as the roster has it. Times are seconds since 1970.

    `certificate` is the SHA-256 of its newest TLS certificate in DER; `revoked_at` is None while it is a
    member, and `reason` says why it is none any more.
    """

    site: str
    public_key: bytes
    certificate: bytes
    valid_until: int
    most_samples: int
    approved_by: str
    since: int
    revoked_at: int | None = None
    reason: str = ""

    @property
    def active(self) -> bool:
        """Whether it is a member today."""
        return self.revoked_at is None


class Members:
    """Every site that is or was a member, by name.

    A key belongs to one name for ever: a site that was revoked comes back under its name, with its own key or
    one that no other site has had.
    """

    def __init__(self, by_site: Mapping[str, Member] | None = None) -> None:
        self._by_site = dict(by_site or {})
        self._owners = {member.public_key: member.site for member in self._by_site.values()}

    @property
    def by_site(self) -> Mapping[str, Member]:
        """All of them, in the order in which they came."""
        return MappingProxyType(self._by_site)

    def active(self, site: str) -> Member | None:
        """Return the member of this name, None for one that never was or is not any more."""
        member = self._by_site.get(site)
        return member if member is not None and member.active else None

    def copy(self) -> "Members":
        """Return the same members, to go on from."""
        return Members(self._by_site)

    def apply(self, entry: Entry, at: int) -> None:
        """Take over what a record says that is appended at `at`. Raises MessageError when it does not fit."""
        match entry:
            case Admitted():
                self._admit(entry, at)
            case Renewed(site, certificate, valid_until):
                self._change(site, certificate=certificate, valid_until=valid_until)
            case Revoked(site, reason):
                self._change(site, revoked_at=at, reason=reason)
            case WeightLimited(site, most_samples):
                self._change(site, most_samples=most_samples)
            case Founded() | KeyRotated():
                pass

    def _admit(self, entry: Admitted, at: int) -> None:
        try:
            check_name("site", entry.site)
        except InvalidInputError as error:
            raise MessageError(str(error)) from error
        if self.active(entry.site) is not None:
            raise MessageError(
                f"{entry.site!r} is a member already; revoke it first, or name the new site otherwise"
            )
        owner = self._owners.setdefault(entry.public_key, entry.site)
        if owner != entry.site:
            raise MessageError(f"the key of {entry.site!r} is that of {owner!r}; each site makes its own")
        self._by_site[entry.site] = Member(
            entry.site,
            entry.public_key,
            entry.certificate,
            entry.valid_until,
            entry.most_samples,
            entry.approved_by,
            since=at,
        )

    def _change(self, site: str, **values: Any) -> None:
        member = self.active(site)
        if member is None:
            raise MessageError(f"{site!r} is no member of this federation")
        self._by_site[site] = replace(member, **values)
