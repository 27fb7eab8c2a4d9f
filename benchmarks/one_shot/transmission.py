"""How a site's statistics travel: fewer dimensions or a low rank, few bits for each value, an entropy coder.

All of it is the product's: `protocol.codecs` with a scale for each row, zstd around it, and one signed
Update. Whole numbers go as they are, in two bytes each.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import msgspec
import numpy as np

from benchmarks.one_shot.linear import Doubles
from benchmarks.one_shot.peer import Statistics
from fedmedclip.protocol import topics
from fedmedclip.protocol.codecs import decode_head, encode_head
from fedmedclip.protocol.codecs.dense import FloatCodec, IntegerCodec
from fedmedclip.protocol.codecs.quantiser import Quantiser
from fedmedclip.protocol.envelope import seal
from fedmedclip.protocol.heads.head import HeadSpecification, NamedArrays, TensorSpecification
from fedmedclip.protocol.link.settings import SMALLEST_COMMON_LIMIT
from fedmedclip.protocol.messages import Block, Update
from fedmedclip.protocol.objects import blocks_of, refer_to
from fedmedclip.protocol.seeds import derive_seed
from fedmedclip.simulation.federation.plan import FEDERATION, derived_key

FLOAT_BITS = 32
_FACTOR, _REST, _DIAGONAL = " factor", " rest", " diagonal"
_SITE = "site"


class Setting(msgspec.Struct, frozen=True):
    """What makes a message of statistics small; the default sends all of it in float32.

    `bits` of each value; `directions` that all sites draw from one seed (None: all dimensions); `rank` of a
    symmetric matrix's factor, what is left of its trace being spread evenly (None: all rows of a triangle);
    `parts` of each class's images whose means are sent.
    """

    bits: int = FLOAT_BITS
    directions: int | None = None
    rank: int | None = None
    parts: int = 1

    def words(self) -> str:
        """Return it in words."""
        words = ["float32" if self.bits == FLOAT_BITS else f"{self.bits} bits"]
        if self.directions is not None:
            words.append(f"{self.directions} random directions")
        if self.rank is not None:
            words.append(f"rank {self.rank}")
        if self.parts > 1:
            words.append(f"{self.parts} means per class")
        return ", ".join(words)


@dataclass(frozen=True)
class Sent:
    """What a server decodes, and how many bytes of MQTT payload it took."""

    statistics: Statistics
    size: int


@cache
def random_directions(size: int, number: int, seed: int) -> Doubles:
    """Return orthonormal columns (D, m), drawn from the federation's seed: nobody has to send them."""
    draw = np.random.Generator(np.random.Philox(derive_seed(seed, purpose="one-shot directions")))
    directions: Doubles = np.linalg.qr(draw.normal(size=(size, number)))[0]
    return directions


def send(statistics: Statistics, setting: Setting, images: int) -> Sent:
    """Return what arrives of the statistics of a site with so many images."""
    arrays = _packed(statistics, setting.rank)
    specification = HeadSpecification(
        tuple(TensorSpecification(name, array.shape) for name, array in arrays.items())
    )
    if setting.bits == FLOAT_BITS:
        encoded = encode_head(FloatCodec("float", FLOAT_BITS), arrays, specification)
    else:
        encoded = encode_head(IntegerCodec("integers", Quantiser(setting.bits)), arrays, specification)
    counts = b"" if statistics.counts is None else statistics.counts.astype("<u2").tobytes()
    decoded = _unpacked(decode_head(encoded.data, specification), statistics)
    arrived = Statistics(decoded, statistics.counts, statistics.symmetric)
    return Sent(arrived, update_bytes(counts + encoded.data, images))


def update_bytes(payload: bytes, images: int) -> int:
    """Return the bytes of a signed Update with this payload, and of the blocks that a large one needs."""
    key, topic = derived_key(0, _SITE), topics.up(FEDERATION, _SITE)
    carried = refer_to(payload, SMALLEST_COMMON_LIMIT)
    messages: list[Update | Block] = [Update(1, images, carried, 0), *blocks_of(payload, carried)]
    return sum(len(seal(message, topic, key, bytes(16))) for message in messages)


def _packed(statistics: Statistics, rank: int | None) -> NamedArrays:
    """Return the arrays as they are encoded: of a symmetric one diagonal and triangle, or a factor.

    The diagonal is much larger than the rest: in the same rows few bits would cut it off.
    """
    packed: dict[str, Doubles] = {}
    for name, array in statistics.arrays.items():
        if name not in statistics.symmetric:
            packed[name] = array
        elif rank is None:
            packed[name + _DIAGONAL] = np.diag(array)
            packed |= {f"{name} {row}": array[row, :row] for row in range(1, len(array))}
        else:
            values, vectors = np.linalg.eigh(array)
            leading = np.maximum(values[::-1][:rank], 0)
            packed[name + _FACTOR] = (vectors[:, ::-1][:, :rank] * np.sqrt(leading)).T
            rest = max(float(np.trace(array) - leading.sum()), 0.0) / max(len(array) - rank, 1)
            packed[name + _REST] = np.array([rest])
    return {name: array.astype(np.float32) for name, array in packed.items()}


def _unpacked(decoded: NamedArrays, statistics: Statistics) -> Mapping[str, Doubles]:
    doubles = {name: array.astype(np.float64) for name, array in decoded.items()}
    arrays: dict[str, Doubles] = {}
    for name, array in statistics.arrays.items():
        if name not in statistics.symmetric:
            arrays[name] = doubles[name]
        elif name + _FACTOR in doubles:
            arrays[name] = _with_rest(doubles[name + _FACTOR], float(doubles[name + _REST][0]))
        else:
            triangle = np.zeros(array.shape)
            for row in range(1, len(array)):
                triangle[row, :row] = doubles[f"{name} {row}"]
            arrays[name] = triangle + triangle.T + np.diag(doubles[name + _DIAGONAL])
    return arrays


def _with_rest(factor: Doubles, rest: float) -> Doubles:
    """Return factor.T @ factor, and `rest` in each direction that the factor (r, D) does not span."""
    outside = np.eye(factor.shape[1]) - np.linalg.pinv(factor) @ factor
    matrix: Doubles = factor.T @ factor + rest * outside
    return matrix
