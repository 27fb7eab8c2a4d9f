"""Backups of a state folder: a consistent copy of its database, made while it is in use, and its keys."""

import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.new_files import new_file
from fedmedclip.protocol.state_folder import claim_state_folder


def back_up(
    state: Path, to: Path, database: str, files: Mapping[str, Path], copy: Callable[[Path], None]
) -> None:
    """Write `database` of a state folder, by `copy`, and `files`, under the names that they are to have, into
    the new folder `to`, for its owner only. A name may lead into a folder in it.

    Raises InvalidInputError when there is no state, or `to` exists.
    """
    if not (state / database).is_file():
        raise InvalidInputError(f"{state} has no {database}: there is nothing to back up")
    if to.exists():
        raise InvalidInputError(f"{to} exists; name a new folder for the backup")
    partial = to.with_name(f".{to.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(mode=0o700, parents=True)
    copy(partial / database)
    for name, path in files.items():
        (partial / name).parent.mkdir(mode=0o700, exist_ok=True)
        shutil.copyfile(path, partial / name)
    for path in partial.rglob("*"):
        if path.is_file():
            path.chmod(0o600)
    partial.rename(to)


def restore(state: Path, backup: Path, database: str, files: Mapping[str, Path]) -> Path | None:
    """Put a backup into the state folder, and return the folder into which what was there was moved.

    `files` says where those of the backup belong, by their names in it.

    Raises InvalidInputError when the backup is none, or a process uses the state.
    """
    for name in (database, *files):
        if not (backup / name).is_file():
            raise InvalidInputError(f"{backup} is no backup: it has no {name}")
    with claim_state_folder(state):
        found = [state / f"{database}{ending}" for ending in ("", "-wal", "-shm")] + [*files.values()]
        present = [path for path in found if path.exists()]
        aside = None
        if present:
            aside = state / time.strftime("before-restore-%Y%m%d-%H%M%S")
            aside.mkdir(mode=0o700)
            for path in present:
                path.rename(aside / path.name)
        # The database last: what has a key but no database is no beginning.
        for name, path in {**files, database: state / database}.items():
            path.parent.mkdir(mode=0o700, exist_ok=True)
            with (backup / name).open("rb") as copy, new_file(path, private=True) as file:
                shutil.copyfileobj(copy, file)
    return aside
