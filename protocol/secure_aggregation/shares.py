"""The shares that a site makes for its peers, and what a peer makes of them.

Each peer gets two: one of the site's self-mask seed, one of the seed of its mask key. They are sealed for it
(ChaCha20-Poly1305 under what two cipher keys agree on), and the aggregator gets a digest of each, so that
who gives back another share than the one it was given is known by name.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from fedmedclip.protocol.errors import MessageError
from fedmedclip.protocol.secure_aggregation.masks import agreed, derived
from fedmedclip.protocol.secure_aggregation.shamir import SHARE_BYTES

COMMITMENT_BYTES = 16
SEALED_BYTES = 2 * SHARE_BYTES + 16
# A key is used once: for one direction between two key pairs that live for one try of one round.
_NONCE = bytes(12)


@dataclass(frozen=True)
class ShareCommitments:
    """Digests of a peer's two shares: of the self-mask seed, and of the mask key's."""

    self_seed: bytes
    mask_seed: bytes


@dataclass(frozen=True)
class PeerShares:
    """What a site holds of one peer. Of the two, it gives away at most one."""

    self_seed: bytes
    mask_seed: bytes

    def commitments(self) -> ShareCommitments:
        """Return the digests by which the aggregator knows them."""
        return ShareCommitments(commitment(self.self_seed), commitment(self.mask_seed))


def commitment(secret: bytes) -> bytes:
    """Return the first 16 bytes of a SHA-256: of a share, or of a self-mask seed, which nobody can guess."""
    return hashlib.sha256(b"fedmedclip share" + secret).digest()[:COMMITMENT_BYTES]


def seal_shares(
    shares: PeerShares, own: X25519PrivateKey, peer: bytes, direction: tuple[int, int], context: bytes
) -> bytes:
    """Return 50 bytes that only the peer opens; `direction` is (own index, peer's index) in the list."""
    return _cipher(own, peer, direction, context).encrypt(_NONCE, shares.self_seed + shares.mask_seed, None)


def open_shares(
    sealed: bytes, own: X25519PrivateKey, peer: bytes, direction: tuple[int, int], context: bytes
) -> PeerShares:
    """Return what a peer sealed; `direction` is (peer's index, own index). Raises MessageError."""
    try:
        opened = _cipher(own, peer, direction, context).decrypt(_NONCE, sealed, None)
    except InvalidTag:
        raise MessageError("the shares are not sealed for this site, or were altered") from None
    return PeerShares(opened[:SHARE_BYTES], opened[SHARE_BYTES:])


def _cipher(own: X25519PrivateKey, peer: bytes, direction: Sequence[int], context: bytes) -> ChaCha20Poly1305:
    sender, receiver = direction
    between = context + sender.to_bytes(4, "big") + receiver.to_bytes(4, "big")
    return ChaCha20Poly1305(derived(agreed(own, peer), "shares", between))
