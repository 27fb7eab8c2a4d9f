"""Unlabelled embeddings that methods adapt to, as a site gets them: quantised, or statistics of them only."""

import hashlib
from collections.abc import Mapping
from typing import Literal

import msgspec
import numpy as np
import numpy.typing as npt

from fedmedclip.edge_client.features.references import (
    SURROGATES,
    Reference,
    decode_reference,
    encode_reference,
    quantised,
    summarised,
    target_embeddings,
)
from fedmedclip.protocol.errors import InvalidInputError

Floats = npt.NDArray[np.float32]

STATISTICS_RANK = 32


class Target(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which images (`server_reference` or `global_test`), and what of them is published."""

    images: str
    form: Literal["embeddings", "statistics"] = "embeddings"
    noise: float = 0.0


class PublishedTarget:
    """A reference set in the bytes that every site gets, and what a site makes of them."""

    def __init__(self, target: Target, embeddings: Mapping[str, Floats]) -> None:
        """Make it. Raises InvalidInputError when there are no such embeddings."""
        if target.images not in embeddings:
            known = ", ".join(embeddings) or "none"
            raise InvalidInputError(
                f"there are no images {target.images!r} to adapt to; with this data there are: {known}"
            )
        chosen = embeddings[target.images]
        reference: Reference
        if target.form == "embeddings":
            reference = quantised(chosen)
        else:
            reference = summarised(chosen, STATISTICS_RANK, target.noise, seed=0)
        encoded = encode_reference(reference)
        self.size = len(encoded)
        self.reference = decode_reference(encoded, chosen.shape[1])

    def draw(self, seed: int) -> Floats:
        """Return rows (n, D): all of them, or for statistics surrogates drawn with this seed."""
        return target_embeddings(self.reference, SURROGATES, seed)


def target_digest(targets: Mapping[str, Floats]) -> str:
    """Return a digest of what can be adapted to: equal digests give equal results."""
    digest = hashlib.sha256()
    for name, embeddings in sorted(targets.items()):
        digest.update(f"{name} {embeddings.shape} ".encode() + embeddings.tobytes())
    return digest.hexdigest()
