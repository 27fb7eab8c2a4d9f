"""Real numbers as integers whose sum is exact, and how these are packed.

A site's value v of weight w becomes rint(w * clip(v / bound, -1, 1)), w an integer from 1 to 2**(bits-1) - 1.
The sum over n sites fits into bits + ceil(log2 n) bits with its sign, so it is exact modulo 2 to that power.
"""

import numpy as np
import numpy.typing as npt

from fedmedclip.protocol.errors import MessageError
from fedmedclip.protocol.secure_aggregation.masks import Words

Doubles = npt.NDArray[np.float64]


def largest_weight(bits: int) -> int:
    """Return the largest integer that a site's values, and its weight, can be."""
    return (1 << (bits - 1)) - 1


def weight_of(samples: int, most_samples: int, bits: int) -> int:
    """Return the integer weight of a site with so many images, of which at most `most_samples` count."""
    largest = largest_weight(bits)
    return max(1, (2 * largest * min(samples, most_samples) + most_samples) // (2 * most_samples))


def modulus_bits(bits: int, participants: int) -> int:
    """Return b: the sum of so many sites' integers fits into b bits with its sign."""
    return bits + (participants - 1).bit_length()


def to_integers(values: Doubles, bounds: Doubles, weight: int) -> npt.NDArray[np.int64]:
    """Return the integers of values (L,), each clipped to its bound (L,), in [-weight, weight]."""
    return np.rint(weight * np.clip(values / bounds, -1.0, 1.0)).astype(np.int64)


def to_values(integers: npt.NDArray[np.int64], bounds: Doubles, weight: int) -> Doubles:
    """Return the weighted mean that a sum of integers stands for; of one site's, what it sent."""
    return integers * bounds / weight


def reduced(integers: npt.NDArray[np.int64], bits: int) -> Words:
    """Return integers modulo 2**bits."""
    return (integers & ((1 << bits) - 1)).astype(np.uint32)


def signed(words: Words, bits: int) -> npt.NDArray[np.int64]:
    """Return the integers of least magnitude that are these modulo 2**bits."""
    half, whole = np.int64(1 << (bits - 1)), np.int64(1 << bits)
    integers = words.astype(np.int64)
    return np.where(integers >= half, integers - whole, integers)


def pack(words: Words, bits: int) -> bytes:
    """Return `bits` bits of each word, the lowest first, one after the other; the last byte ends in zeros."""
    places = np.arange(bits, dtype=np.uint32)
    return np.packbits((words[:, None] >> places) & np.uint32(1), bitorder="little").tobytes()


def packed_bytes(length: int, bits: int) -> int:
    """Return how many bytes `pack` gives."""
    return (length * bits + 7) // 8


def unpack(data: bytes, length: int, bits: int) -> Words:
    """Return the words that were packed. Raises MessageError for another number of bytes."""
    if len(data) != packed_bytes(length, bits):
        raise MessageError(
            f"a masked vector has {len(data)} bytes, {length} integers of {bits} bits take "
            f"{packed_bytes(length, bits)}"
        )
    taken = np.unpackbits(np.frombuffer(data, np.uint8), count=length * bits, bitorder="little")
    places = np.arange(bits, dtype=np.uint32)
    words: Words = (taken.reshape(length, bits).astype(np.uint32) << places).sum(axis=1, dtype=np.uint32)
    return words
