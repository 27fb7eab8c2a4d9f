"""What a record of the roster can say: bounded MessagePack arrays whose first item is a tag."""

from typing import Annotated

import msgspec
from msgspec import Meta

from fedmedclip.protocol.messages import Digest, PublicKey, Reason, Samples

Name = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9_-]{0,31}\Z")]
Person = Annotated[str, Meta(max_length=128)]
Seconds = Annotated[int, Meta(ge=0, le=(1 << 37) - 1)]
"""Seconds since 1970 (POSIX time)."""


class _Entry(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    pass


class Founded(_Entry, frozen=True, tag=1):
    """The first record, and only that: a federation, the coordinator's key, which signs all that follow, and
    the SHA-256 of its certificate authority's certificate in DER.
    """

    federation: Name
    coordinator_key: PublicKey
    authority: Digest


class Admitted(_Entry, frozen=True, tag=2):
    """A site becomes a member, or one again, with the key that signs its messages.

    `certificate` is the SHA-256 of its TLS certificate in DER, which ends at `valid_until`. Its updates weigh
    at most as `most_samples` images. `approved_by` says in words who approved.
    """

    site: Name
    public_key: PublicKey
    certificate: Digest
    valid_until: Seconds
    most_samples: Samples
    approved_by: Person


class Renewed(_Entry, frozen=True, tag=3):
    """A member has a new TLS certificate, and goes on with the same key."""

    site: Name
    certificate: Digest
    valid_until: Seconds


class Revoked(_Entry, frozen=True, tag=4):
    """A member is one no more: what it sends is refused from now on."""

    site: Name
    reason: Reason


class KeyRotated(_Entry, frozen=True, tag=5):
    """The coordinator signs with another key from the next record on."""

    coordinator_key: PublicKey


class WeightLimited(_Entry, frozen=True, tag=6):
    """From now on a member's updates weigh at most as `most_samples` images."""

    site: Name
    most_samples: Samples


Entry = Founded | Admitted | Renewed | Revoked | KeyRotated | WeightLimited
