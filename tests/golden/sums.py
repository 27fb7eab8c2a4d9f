"""A try to sum updates under masks, with every secret in it: three sites, the last of which falls away."""

import random
from typing import Any
from unittest import mock

import numpy as np

from fedmedclip.protocol import messages
from fedmedclip.protocol.secure_aggregation.integers import modulus_bits, pack, reduced
from fedmedclip.protocol.secure_aggregation.masks import pair_masks, private_key, public_half, self_mask
from fedmedclip.protocol.secure_aggregation.shamir import split, threshold_of
from fedmedclip.protocol.secure_aggregation.shares import PeerShares, commitment, seal_shares

BITS, SITES, SURVIVORS = 8, 3, (0, 1)
INTEGERS = ((5, -127, 0, 90), (127, -127, 1, 127), (-3, 2, 1, 60))
SEEDS = [[bytes(range(start, start + 16)) for start in (base, base + 50, base + 100)] for base in (0, 30, 60)]


def sum_under_masks() -> dict[str, Any]:
    """Return the entry of the manifest: what each says, as hexadecimal, and what comes of it."""
    cipher = [private_key(seeds[0], "cipher key") for seeds in SEEDS]
    masks = [private_key(seeds[1], "mask key") for seeds in SEEDS]
    listed = [
        messages.Listed(
            f"site-{place}", None, public_half(cipher[place]), public_half(masks[place]), bytes(64)
        )
        for place in range(SITES)
    ]
    participants = messages.Participants(1, [0.5], False, listed)
    digest, bits = participants.digest, modulus_bits(BITS, SITES)
    made = [_shares_of(place, cipher, listed, digest) for place in range(SITES)]
    masked = {}
    for place in SURVIVORS:
        others = [(other, listed[other].mask_key) for other in range(SITES) if other != place]
        words = reduced(np.array(INTEGERS[place]), bits) + self_mask(SEEDS[place][2], digest, 4, bits)
        words = words + pair_masks(place, masks[place], others, digest, 4, bits)
        masked[place] = pack(words & np.uint32((1 << bits) - 1), bits)
    return {
        "participants": messages.encode_message(participants).hex(),
        "bits": BITS,
        "cipher_seeds": [seeds[0].hex() for seeds in SEEDS],
        "seed_commitments": [commitment(seeds[2]).hex() for seeds in SEEDS],
        "sealed": [
            [[part.sealed.hex(), part.self_commitment.hex(), part.mask_commitment.hex()] for part in row]
            for row in made
        ],
        "masked": {str(place): data.hex() for place, data in masked.items()},
        "sum": [int(sum(INTEGERS[place][at] for place in SURVIVORS)) for at in range(4)],
    }


def _shares_of(
    place: int, cipher: list[Any], listed: list[messages.Listed], digest: bytes
) -> list[messages.SealedShares]:
    """Return what a site makes for each place; the polynomials come from a seed."""
    _, mask_seed, self_seed = SEEDS[place]
    with mock.patch("secrets.randbelow", random.Random(place).randrange):
        of_self = split(self_seed, threshold_of(SITES), SITES)
        of_mask = split(mask_seed, threshold_of(SITES), SITES)
    made = []
    for peer in range(SITES):
        shares = PeerShares(of_self[peer], of_mask[peer])
        sealed = seal_shares(shares, cipher[place], listed[peer].cipher_key, (place, peer), digest)
        made.append(messages.SealedShares(sealed, commitment(of_self[peer]), commitment(of_mask[peer])))
    return made
