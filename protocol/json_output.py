"""What a command prints for programs: one JSON object on standard output."""

from pathlib import PurePath

import msgspec

from fedmedclip.protocol.visible import visible


def print_json(value: object) -> None:
    """Print a structure, mapping or dataclass as indented JSON; paths as visible text."""
    encoded = msgspec.json.encode(value, enc_hook=_plain)
    print(msgspec.json.format(encoded, indent=2).decode())


def _plain(value: object) -> str:
    if isinstance(value, PurePath):
        return visible(value)
    raise NotImplementedError(f"JSON has no {type(value).__name__}")
