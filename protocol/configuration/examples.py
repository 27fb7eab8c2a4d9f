"""The commented examples of configuration files, with some values filled in."""

import json
import re
from collections.abc import Mapping
from importlib import resources

# Named, not imported: what is shared by the rooms stands below the command.
EXAMPLES = resources.files("fedmedclip") / "examples"


def filled_example(example: str, values: Mapping[str, str | int | bool | None]) -> str:
    """Return an example's text with some settings' first lines replaced, with or without # before them.

    A value of None leaves its line as it is.
    """
    text = (EXAMPLES / example).read_text(encoding="utf-8")
    for setting, value in values.items():
        if value is not None:
            # JSON's texts are TOML's, but for one control character.
            line = f"{setting} = {json.dumps(value, ensure_ascii=False)}".replace("\x7f", "\\u007f")
            found = re.search(rf"(?m)^(?:# )?{setting} = \S+( *)", text)
            assert found is not None
            # What follows is a comment, which stays in its column.
            padded = line.ljust(len(found[0]) - 2) + "  " if found[1] else line
            text = text[: found.start()] + padded + text[found.end() :]
    return text
