"""Whether a bundle or heads are used: only what a trusted key signed is, unless a person says otherwise."""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fedmedclip.protocol.bundle.bundle import Bundle
from fedmedclip.protocol.bundle.signature import read_public_key, signer
from fedmedclip.protocol.errors import BundleError, FedMedClipError, HeadError, InvalidInputError
from fedmedclip.protocol.heads.heads_signature import heads_signer
from fedmedclip.protocol.trust.pins import pins

if TYPE_CHECKING:
    # Not for `predict`, which has no roster.
    from fedmedclip.protocol.roster.chain import Roster

log = logging.getLogger("fedmedclip")

KEYS_VARIABLE = "FEDMEDCLIP_TRUSTED_KEY"
INSECURE_VARIABLE = "FEDMEDCLIP_INSECURE"
Source = Literal["user", "option", "site"]
"""Who says which keys are trusted: this user's trusted keys, the option --key, a site's aggregator_key."""


@dataclass(frozen=True)
class Trust:
    """The trusted public keys (32 raw bytes), who says so, and whether a person does without any.

    `without` is what a person says to do without, empty where that cannot be said.
    """

    keys: frozenset[bytes]
    source: Source
    insecure: bool = False
    without: str = "this once --insecure"

    def require_bundle(self, bundle: Bundle) -> None:
        """Raise BundleError unless an opened bundle is signed by a trusted key.

        A signature that is not the manifest's is refused always.
        """
        found = signer(bundle.folder, bundle.digest)
        to_sign = f"fedmedclip bundle sign {bundle.folder}"
        self._require(found, f"bundle {bundle.folder}", to_sign, BundleError)

    def require_heads(self, path: Path) -> None:
        """Raise HeadError unless a heads file is signed by a trusted key; a damaged one is refused always."""
        self._require(heads_signer(path), f"heads {path}", f"fedmedclip heads sign {path}", HeadError)

    def _require(self, found: bytes | None, what: str, to_sign: str, error: type[FedMedClipError]) -> None:
        if found in self.keys:
            return
        if self.insecure:
            log.warning("%s is used although nobody trusted signed it, as insecure asks for", what)
            return
        state = "is not signed" if found is None else f"is signed by {found.hex()}"
        raise error(f"{what} {state}{self._advice(found, to_sign)}")

    def _advice(self, found: bytes | None, to_sign: str) -> str:
        if self.source == "option":
            keys = " or ".join(key.hex() for key in sorted(self.keys))
            return f", and --key asks for {keys}; do not use it, and ask its maker for what this key signed"
        if self.source == "site":
            keys = " or ".join(key.hex() for key in sorted(self.keys))
            return (
                f", and aggregator_key in [site] asks for {keys}; ask the centre for what this key signed "
                f"(there: {to_sign} --key FILE)"
            )
        if found is None:
            return (
                ", and only what a trusted key signed is used; ask its maker for a signed copy, or if you "
                f"know where it is from: {to_sign}{self.without and f', or {self.without}'}"
            )
        return (
            ", whom this user does not trust; if its maker told you by another way that this is their key: "
            f"fedmedclip trust {found.hex()}"
        )


def trust_of_user(keys: Sequence[str] = (), *, insecure: bool = False) -> Trust:
    """Return what holds for this user: the `keys` of the option --key, or what is trusted on this machine.

    That are the pins of this user and the keys in the environment variable FEDMEDCLIP_TRUSTED_KEY (64
    hexadecimal digits or files, with commas between). FEDMEDCLIP_INSECURE=1 does without a signature only
    where there is neither; `insecure`, which a person says for one use, does so also beside them. Raises
    InvalidInputError for a key that is none, and for `insecure` beside `keys`.
    """
    if keys:
        if insecure:
            raise InvalidInputError("--key asks for a signature, --insecure for none; leave one of them out")
        return Trust(frozenset(read_public_key(key) for key in keys), "option")
    named = [key.strip() for key in os.environ.get(KEYS_VARIABLE, "").split(",") if key.strip()]
    trusted = frozenset(_pins(needed=not insecure)) | {read_public_key(key, KEYS_VARIABLE) for key in named}
    ambient = os.environ.get(INSECURE_VARIABLE) == "1" and not trusted
    return Trust(trusted, "user", insecure or ambient)


def _pins(*, needed: bool) -> dict[bytes, str]:
    try:
        return pins()
    except InvalidInputError:
        if needed:
            raise
        return {}


def trust_of_site(
    aggregator_key: str | None, roster: "Roster | None" = None, *, insecure: bool = False
) -> Trust:
    """Return what holds for a site: the key that its configuration pins, or else what holds for its user.

    `roster`, where the site has one, is verified, and leads to the keys that follow the pinned one.
    """
    if aggregator_key is None:
        return replace(trust_of_user(insecure=insecure), without="insecure = true in [site]")
    return Trust(trusted_keys(bytes.fromhex(aggregator_key), roster), "site")


def trusted_keys(pinned: bytes, roster: "Roster | None" = None) -> frozenset[bytes]:
    """Return the keys that speak for a federation's centre when a site pins `pinned`.

    Those are the pinned one, by which a bundle from before a rotation is signed, and each to which the
    rotations of a verified roster lead from there; not the keys before it, nor any of a roster that it does
    not stand in.
    """
    keys = () if roster is None else roster.coordinator_keys
    return frozenset({pinned, *(keys[keys.index(pinned) :] if pinned in keys else ())})


def words_of_signer(key: bytes | None) -> str:
    """Say for a person who signed something, and whether this user trusts them."""
    if key is None:
        return "nobody"
    note = pins().get(key)
    known = "whom this user does not trust: fedmedclip trust KEY" if note is None else f"trusted: {note}"
    return f"{key.hex()} ({known})"
