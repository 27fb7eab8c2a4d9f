"""What a codec is: named float32 arrays to bytes and back."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy.typing as npt

from fedmedclip.protocol.heads.head import HeadSpecification, NamedArrays


@dataclass(frozen=True)
class Encoded:
    """An encoded head, and what the encoder wants to be given again in the next round (often nothing).

    Whoever encodes stores `memory` in the same transaction as the residual, so that a kill changes no bit.
    """

    data: bytes
    memory: bytes = b""


@dataclass(frozen=True)
class Decoded:
    """A decoded head, and what it was coded as: the symbols of each entropy-coded stream, as integers.

    `side_bytes` are the bytes of everything else (identifiers, scales, lengths).
    """

    arrays: NamedArrays
    streams: tuple[npt.NDArray[Any], ...]
    side_bytes: int


class Codec(Protocol):
    """Encodes named float32 arrays under a head specification. The same input gives the same bytes anywhere.

    `name` is the name in the plan, parameters included. The first byte of what it encodes tells any receiver
    the decoder (`decode_head`): decoders keep no state and need no parameters.
    `lossless`: decoding gives the encoded arrays bit by bit. `whole_head`: made for whole heads instead of
    deltas, without error feedback; only the bandwidth benchmark uses such a codec, as the thing to beat.
    `carry`: of what a round leaves out, the share that the next one still owes, 1 for all of it.
    """

    @property
    def name(self) -> str: ...
    @property
    def lossless(self) -> bool: ...
    @property
    def whole_head(self) -> bool: ...
    @property
    def carry(self) -> float: ...

    def encode(self, arrays: NamedArrays, specification: HeadSpecification, memory: bytes) -> Encoded:
        """Return the encoded arrays. `memory` is the `Encoded.memory` of the round before, empty at first.

        The arrays match the specification (`encode_head` checks). Memory that is not this codec's own counts
        as empty. Raises HeadError for values too large to encode.
        """
