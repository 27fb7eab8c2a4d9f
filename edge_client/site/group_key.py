"""The key of a site's keyed hash, under which patients become groups; it never leaves the site."""

import secrets
from pathlib import Path

from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.new_files import write_new_file
from fedmedclip.protocol.paths import open_regular_file
from fedmedclip.protocol.private_files import refuse_readers

GROUP_KEY = "groups.key"
_BYTES = 32


def load_or_create_group_key(path: Path) -> bytes:
    """Return the 32 bytes at `path`, made at random where there is no file, for its owner's eyes only.

    Raises InvalidInputError when the file cannot be used, or other users can read it.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_new_file(path, secrets.token_bytes(_BYTES), private=True)
    try:
        with open_regular_file(path) as file:
            key = file.read(_BYTES + 1)
    except OSError as error:
        raise InvalidInputError(f"group key {path} cannot be read ({error.strerror})") from error
    if len(key) != _BYTES:
        raise InvalidInputError(
            f"group key {path} has {len(key)} bytes, expected {_BYTES}; restore it from a backup, or delete "
            "it: groups get new names, and no image changes its part"
        )
    refuse_readers(path, "group key")
    return key
