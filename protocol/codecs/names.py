"""Codec names: a preset and its parameters, as in `lowrank:rank=8,bits=4`."""

from typing import ClassVar

from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.named_options import NameWithOptions, taken_apart

LONGEST_NAME = 64
"""Characters, as a Plan carries them."""


class CodecName(NameWithOptions):
    """A codec's name taken apart."""

    kind: ClassVar[str] = "codec"


def parse_name(name: str) -> CodecName:
    """Return the parts of PRESET or PRESET:KEY=VALUE,...; InvalidInputError when it is neither."""
    if len(name) > LONGEST_NAME:
        raise InvalidInputError(
            f"codec {name[:LONGEST_NAME]!r}... has {len(name)} characters, at most {LONGEST_NAME} fit a plan"
        )
    return CodecName(name, *taken_apart("codec", name, "lowrank:rank=8,bits=4"))
