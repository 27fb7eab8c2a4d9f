"""Taking the masks off a sum: the survivors' own, and those that they share with whoever fell away."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from fedmedclip.protocol.messages import MaskShares, Participants, Reveal
from fedmedclip.protocol.secure_aggregation.integers import signed
from fedmedclip.protocol.secure_aggregation.masks import (
    Words,
    pair_masks,
    private_key,
    public_half,
    self_mask,
)
from fedmedclip.protocol.secure_aggregation.shamir import combine
from fedmedclip.protocol.secure_aggregation.shares import commitment


def unmasked_sum(
    participants: Participants,
    masked: Mapping[int, Words],
    shares: Mapping[int, MaskShares],
    sharers: Sequence[int],
    reveals: Mapping[int, Reveal],
    bits: int,
) -> tuple[npt.NDArray[np.int64] | None, list[int]]:
    """Return the sum of the integers (L,) behind `masked`, or None and the places of whose shares are false.

    `reveals` are at least the threshold, each with a share of each of `sharers` in turn, as committed to.
    """
    context, listed = participants.digest, participants.listed
    secrets: dict[int, bytes] = {}
    liars: list[int] = []
    for position, owner in enumerate(sharers):
        found = combine({holder + 1: reveal.shares[position] for holder, reveal in reveals.items()})
        if found is not None and owner in masked:
            right = commitment(found) == shares[owner].seed_commitment
        else:
            right = found is not None and (
                public_half(private_key(found, "mask key")) == listed[owner].mask_key
            )
        if found is None or not right:
            liars.append(owner)
        else:
            secrets[owner] = found
    if liars:
        return None, liars
    length = len(next(iter(masked.values())))
    total = np.zeros(length, np.uint32)
    for words in masked.values():
        total += words
    survivors = [(index, listed[index].mask_key) for index in sorted(masked)]
    for owner, secret in secrets.items():
        if owner in masked:
            total -= self_mask(secret, context, length, bits)
        else:
            key = private_key(secret, "mask key")
            total += pair_masks(owner, key, survivors, context, length, bits)
    return signed(total & np.uint32((1 << bits) - 1), bits), []
