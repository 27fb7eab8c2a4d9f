"""A target domain without its images: unlabelled reference embeddings, or only statistics of them.

One MessagePack file, `reference.fmr`, in the bundle: `fedmedclip reference` makes it, the manifest names its
SHA-256, and every site that has the bundle has it.
"""

from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Meta

from fedmedclip.edge_client.heads.layers import are_unit_rows, unit_rows
from fedmedclip.protocol.bundle.bundle import REFERENCE_FILE, Bundle
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.malformed import MALFORMED
from fedmedclip.protocol.paths import open_regular_file, read_at_most

FORMAT = 1
LIMIT = 64 << 20
SURROGATES = 512
"""How many embeddings are drawn a round where only statistics are known."""
_STEPS = 127

Floats = npt.NDArray[np.float32]
Size = Annotated[int, Meta(ge=1, le=1 << 16)]


class ReferenceEmbeddings(
    msgspec.Struct, frozen=True, tag="embeddings", forbid_unknown_fields=True, omit_defaults=True
):
    """Vectors in 8 bits: row i is `values[i] * scales[i]`; `values` int8 (rows, D), `scales` float32.

    Of unit length, or with `own_length` of that of a bundle whose manifest says so.
    """

    format: int
    rows: Size
    embedding_size: Size
    scales: bytes
    values: bytes
    own_length: bool = False


class ReferenceStatistics(
    msgspec.Struct, frozen=True, tag="statistics", forbid_unknown_fields=True, omit_defaults=True
):
    """Mean (D,), covariance factors (rank, D) and the deviation per value of what they leave out: float32.

    Of no class, and of no single image once `noise` was added to them; `own_length` as of the embeddings.
    """

    format: int
    rank: Annotated[int, Meta(ge=0, le=4096)]
    embedding_size: Size
    mean: bytes
    factors: bytes
    remainder: Annotated[float, Meta(ge=0, le=1e6)]
    own_length: bool = False


Reference = ReferenceEmbeddings | ReferenceStatistics


def quantised(embeddings: Floats) -> ReferenceEmbeddings:
    """Return embeddings (N, D) in 8 bits, at unit length unless they have another."""
    own_length = not are_unit_rows(embeddings)
    rows = embeddings if own_length else unit_rows(embeddings)
    scales = (np.abs(rows).max(axis=1, keepdims=True) / _STEPS).astype("<f4")
    values = np.rint(rows / np.maximum(scales, np.float32(1e-12))).astype(np.int8)
    return ReferenceEmbeddings(
        FORMAT, len(rows), rows.shape[1], scales.tobytes(), values.tobytes(), own_length
    )


def summarised(embeddings: Floats, rank: int, noise: float, seed: int) -> ReferenceStatistics:
    """Return mean and the `rank` largest covariance factors of (N, D), at unit length or the rows' own.

    Gaussian noise of deviation `noise` times the embeddings' own mean deviation per value, divided by the
    root of N, is added to each value of mean and factors. That hides an image's part, without a formal
    guarantee. Raises InvalidInputError when there are too few images.
    """
    own_length = not are_unit_rows(embeddings)
    rows = (embeddings if own_length else unit_rows(embeddings)).astype(np.float64)
    images, size = rows.shape
    if images < 2:
        raise InvalidInputError(f"statistics need at least 2 images, there are {images}")
    rank = min(rank, size, images - 1)
    mean = rows.mean(axis=0)
    _, lengths, directions = np.linalg.svd((rows - mean) / np.sqrt(images - 1), full_matrices=False)
    factors = lengths[:rank, None] * directions[:rank]
    remainder = float(np.sqrt((lengths[rank:] ** 2).sum() / size))
    draw = np.random.Generator(np.random.Philox(seed))
    deviation = noise * float(rows.std(axis=0).mean()) / np.sqrt(images)
    mean = mean + deviation * draw.standard_normal(mean.shape)
    factors = factors + deviation * draw.standard_normal(factors.shape)
    return ReferenceStatistics(
        FORMAT,
        rank,
        size,
        mean.astype("<f4").tobytes(),
        factors.astype("<f4").tobytes(),
        remainder,
        own_length,
    )


def target_embeddings(reference: Reference, number: int, seed: int) -> Floats:
    """Return rows (n, D) of the target domain: all embeddings, or `number` drawn from the statistics.

    At unit length, or at their own where the set says so.
    """
    size = reference.embedding_size
    if isinstance(reference, ReferenceEmbeddings):
        values = np.frombuffer(reference.values, np.int8).reshape(-1, size).astype(np.float32)
        rows = values * np.frombuffer(reference.scales, "<f4")[:, None]
        return rows if reference.own_length else unit_rows(rows)
    mean = np.frombuffer(reference.mean, "<f4")
    factors = np.frombuffer(reference.factors, "<f4").reshape(-1, size)
    draw = np.random.Generator(np.random.Philox(seed))
    along = draw.standard_normal((number, len(factors))) @ factors
    across = reference.remainder * draw.standard_normal((number, size))
    rows = (mean + along + across).astype(np.float32)
    return rows if reference.own_length else unit_rows(rows)


def encode_reference(reference: Reference) -> bytes:
    """Return the file's bytes."""
    return msgspec.msgpack.encode(reference)


def decode_reference(encoded: bytes, embedding_size: int) -> Reference:
    """Read a file's bytes; raise InvalidInputError unless they are whole and fit the encoder."""
    try:
        reference: Reference = msgspec.msgpack.decode(encoded, type=Reference)
    except MALFORMED as error:
        raise InvalidInputError(f"the reference set is damaged: {error}; make it again") from error
    size = reference.embedding_size
    if reference.format != FORMAT or size != embedding_size:
        raise InvalidInputError(
            f"the reference set has format {reference.format} and embeddings of {size} values, expected "
            f"{FORMAT} and {embedding_size}; make it again with this bundle"
        )
    if isinstance(reference, ReferenceEmbeddings):
        parts = [(reference.scales, 4 * reference.rows), (reference.values, reference.rows * size)]
        floats = [reference.scales]
    else:
        parts = [(reference.mean, 4 * size), (reference.factors, 4 * reference.rank * size)]
        floats = [reference.mean, reference.factors]
    if any(len(part) != length for part, length in parts):
        raise InvalidInputError("the reference set is damaged: an array has the wrong length; make it again")
    if not all(np.isfinite(np.frombuffer(part, "<f4")).all() for part in floats):
        raise InvalidInputError("the reference set is damaged: a value is not finite; make it again")
    return reference


def reference_of(bundle: Bundle) -> Reference | None:
    """Return the bundle's reference set, or None when it has none. Its hash was checked with the bundle's."""
    if REFERENCE_FILE not in bundle.manifest.files:
        return None
    path = Path(bundle.folder) / REFERENCE_FILE
    with open_regular_file(path) as file:
        return decode_reference(read_at_most(file, LIMIT), bundle.manifest.embedding_size)
