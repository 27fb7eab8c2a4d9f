"""How much of a budget a round is worth: the size of what is to be sent, against the largest so far.

Deltas shrink as learning rates fall and a head settles. A settled head gets down to a quarter of the budget.
"""

import struct

from fedmedclip.protocol.codecs.scales import mean_magnitudes
from fedmedclip.protocol.heads.head import HeadSpecification, NamedArrays

PEAK = struct.Struct("<d")
"""What an encoder remembers: the largest mean magnitude so far, somewhat forgotten."""
# The peak is forgotten by a tenth per round, so that one large first step does not starve all others.
_FORGETTING = 0.9
_LEAST_SHARE = 0.25


def share_and_peak(
    arrays: NamedArrays, specification: HeadSpecification, memory: bytes
) -> tuple[float, bytes]:
    """Return the share of the budget to spend, 0.25 to 1, and what to remember first.

    `memory` begins with what was remembered in the round before; what is no such number counts as 0.
    """
    size = _mean_magnitude(arrays, specification)
    peak = max(size, _known_peak(memory) * _FORGETTING)
    return max(_LEAST_SHARE, size / peak) if peak else _LEAST_SHARE, PEAK.pack(peak)


def _known_peak(memory: bytes) -> float:
    peak = PEAK.unpack_from(memory)[0] if len(memory) >= PEAK.size else 0.0
    return float(peak) if 0.0 <= peak < float("inf") else 0.0


def _mean_magnitude(arrays: NamedArrays, specification: HeadSpecification) -> float:
    total = 0.0
    for tensor in specification.tensors:
        total += float(mean_magnitudes(arrays[tensor.name].reshape(1, -1))[0]) * tensor.size
    return total / max(1, specification.size)
