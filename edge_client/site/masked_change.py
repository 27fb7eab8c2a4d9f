"""What a site gives to a sum: its change as integers, and what of it stays owed."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedmedclip.edge_client.site.state import OutgoingUpdate
from fedmedclip.protocol.codecs.error_feedback import Compressed, difference, norm_of
from fedmedclip.protocol.heads.head import HeadSpecification, NamedArrays
from fedmedclip.protocol.messages import Plan
from fedmedclip.protocol.secure_aggregation.integers import to_integers, to_values, weight_of
from fedmedclip.protocol.secure_aggregation.projection import Shared, linear_codec_of, projection_of


@dataclass(frozen=True)
class MaskedChange:
    """The integers (L + 1,), the last of which is the weight, and what the change leaves to later rounds."""

    integers: npt.NDArray[np.int64]
    residual_bytes: bytes
    compressed: Compressed


_MOST_BYTES_OF_INTEGER = 4


def masked_bytes(plan: Plan, specification: HeadSpecification) -> int:
    """Return how many bytes a masked update has at most: see `protocol.secure_aggregation.projection`."""
    codec, values = linear_codec_of(plan), 1
    for tensor in specification.tensors:
        values += tensor.size
        if tensor.symmetric and 0 < 2 * codec.directions <= tensor.shape[0]:
            values += codec.directions * tensor.shape[0] - tensor.size
        elif len(tensor.shape) == 2 and not tensor.measured and 0 < codec.rank <= min(tensor.shape) // 4:
            values += codec.rank * max(tensor.shape) - tensor.size
    return _MOST_BYTES_OF_INTEGER * values


def masked_change(
    plan: Plan,
    specification: HeadSpecification,
    update: OutgoingUpdate,
    head: NamedArrays,
    delta: NamedArrays | None,
    bounds: Sequence[float],
    start_directions: npt.NDArray[np.float32] | None,
) -> MaskedChange:
    """Return an update, whose payload is the float32 of what the site wants to send, as integers.

    `head` is the version that all train from, `delta` the difference that all know; `bounds` are those of the
    arrays.
    """
    assert plan.secure is not None
    wanted = specification.from_bytes(update.payload)
    shared = Shared(update.round_number, plan.seed, head, delta, start_directions)
    projection = projection_of(linear_codec_of(plan), specification, shared)
    each = np.repeat(np.array(bounds, np.float64), projection.sizes)
    weight = weight_of(update.samples, plan.secure.most_samples, plan.secure.bits)
    integers = to_integers(projection.apply(wanted), each, weight)
    decoded = projection.lift(to_values(integers, each, weight))
    residual = difference(wanted, decoded)
    for tensor in specification.tensors:
        if tensor.measured:
            residual[tensor.name] = np.zeros(tensor.shape, np.float32)
    norms = norm_of(wanted), norm_of(wanted), norm_of(residual)
    return MaskedChange(
        np.append(integers, weight),
        specification.to_bytes(residual),
        Compressed(b"", decoded, residual, b"", *norms),
    )
