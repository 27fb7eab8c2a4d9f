"""The keys that a user of this machine trusts, and the key with which this user signs.

They lie in `fedmedclip` below the user's configuration folder (`XDG_CONFIG_HOME`, by default `~/.config`; XDG
Base Directory Specification), away from every bundle:

    own.key               this user's own signing key, 32 raw private bytes, made when it is first needed
    trusted-keys/HEX      one file for each trusted public key; HEX are its 64 hexadecimal digits, the file's
                          first line says whose it is

A file for each key, so that several processes may add one at the same time, and an administrator may copy one
there.
"""

import logging
import os
import re
import stat
from pathlib import Path

from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.new_files import write_new_file
from fedmedclip.protocol.paths import open_regular_file
from fedmedclip.protocol.private_files import modes_count
from fedmedclip.protocol.signature import SigningKey, load_or_create_signing_key
from fedmedclip.protocol.visible import visible

log = logging.getLogger("fedmedclip")

OWN_NOTE = "this user's own key"
_PIN = re.compile("[0-9a-f]{64}")
_LONGEST_NOTE = 200
_WRITTEN_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def configuration_folder() -> Path:
    """Return this user's folder for us, which need not exist yet."""
    # What is relative is to be ignored, as the specification has it.
    given = Path(os.environ.get("XDG_CONFIG_HOME", ""))
    try:
        base = given if given.is_absolute() else Path.home() / ".config"
    except RuntimeError as error:
        raise InvalidInputError(
            f"this user has no home folder ({error}); set XDG_CONFIG_HOME to a folder for the trusted keys"
        ) from error
    return base / "fedmedclip"


def pins_folder() -> Path:
    """Return the folder of the trusted keys, which need not exist yet."""
    return configuration_folder() / "trusted-keys"


def pins() -> dict[bytes, str]:
    """Return the trusted keys (32 raw bytes) with whose they are, in the order of their digits.

    Raises InvalidInputError where the folder cannot be read, or others may write to it: they could add a key.
    """
    folder = pins_folder()
    found: dict[bytes, str] = {}
    try:
        for checked in (folder, folder.parent):
            if modes_count() and checked.stat().st_mode & _WRITTEN_BY_OTHERS:
                raise InvalidInputError(
                    f"other users may write to {checked}, where the trusted keys lie; close it: "
                    f"chmod go-w {checked}"
                )
        for name in sorted(os.listdir(folder)):
            if _PIN.fullmatch(name):
                found[bytes.fromhex(name)] = _note(folder / name)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise InvalidInputError(
            f"the trusted keys in {folder} cannot be read ({error.strerror}); as another user than the one "
            "who logged in, set XDG_CONFIG_HOME"
        ) from error
    return found


def pin(key: bytes, note: str) -> bool:
    """Trust a public key from now on; return whether it is new here. An older key with this note goes.

    Raises InvalidInputError where it cannot be written.
    """
    folder, note = pins_folder(), visible(" ".join(note.split()))[:_LONGEST_NOTE]
    known = pins()
    if known.get(key) == note:
        return False
    try:
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        write_new_file(folder / key.hex(), f"{note}\n".encode())
        for other, words in known.items():
            if words == note and other != key:
                (folder / other.hex()).unlink(missing_ok=True)
    except OSError as error:
        raise InvalidInputError(f"the trusted key cannot be kept in {folder} ({error.strerror})") from error
    return key not in known


def pin_where_possible(key: bytes, note: str) -> None:
    """Trust a key as `pin` does; where that cannot be kept, as by a service without a home, only say so."""
    try:
        pin(key, note)
    except InvalidInputError as error:
        log.warning("%s; where this user needs it: fedmedclip trust %s", error, key.hex())


def unpin(key: bytes) -> None:
    """Trust a key no longer. Raises InvalidInputError when it was not trusted, or cannot be removed."""
    path = pins_folder() / key.hex()
    try:
        path.unlink()
    except FileNotFoundError:
        raise InvalidInputError(
            f"{key.hex()} is not among the trusted keys in {path.parent}; `fedmedclip trust` lists them"
        ) from None
    except OSError as error:
        raise InvalidInputError(f"{path} cannot be removed ({error.strerror})") from error


def own_key() -> SigningKey:
    """Return this user's own key, which is made when it is first needed, and trusted from then on.

    Raises InvalidInputError where it cannot be kept, or others can read it.
    """
    path = configuration_folder() / "own.key"
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        key = load_or_create_signing_key(path)
    except OSError as error:
        raise InvalidInputError(
            f"this user's own key cannot be kept at {path} ({error.strerror}); set XDG_CONFIG_HOME to a "
            "folder that this user may write to"
        ) from error
    pin(key.public_key, OWN_NOTE)
    return key


def _note(path: Path) -> str:
    with open_regular_file(path) as file:
        lines = file.read(4 * _LONGEST_NOTE).decode(errors="replace").splitlines()
    return visible(lines[0].strip()[:_LONGEST_NOTE]) if lines else ""
