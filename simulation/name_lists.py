"""Lists of names as a person types them, where a name may have options: `int8,lowrank:rank=8,bits=4`."""

from fedmedclip.protocol.errors import InvalidInputError


def parse_names(option: str, text: str) -> list[str]:
    """Return the names of a list with commas between them, each once. Raises InvalidInputError for none."""
    names: list[str] = []
    for part in filter(None, map(str.strip, text.split(","))):
        # A name's own options have commas between them too: lowrank:rank=8,bits=4
        if names and "=" in part and ":" not in part:
            names[-1] += f",{part}"
        else:
            names.append(part)
    if not names:
        raise InvalidInputError(f"{option} is empty; give one or more names with commas between them")
    return list(dict.fromkeys(names))
