"""A folder for durable state, used by one process at a time."""

import fcntl
import os
import time
from pathlib import Path
from typing import IO

from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.private_files import make_private_folder

# What shows that a folder is a party's state and no other's.
_STATE = frozenset({"lock", "site.db", "serve.db", "aggregator.db", "site.key", "aggregator.key"})

_PATIENCE_SECONDS = 0.5


def claim_state_folder(folder: Path) -> IO[bytes]:
    """Create `folder` if needed, close it to all but its owner, and lock it as `claim_folder` does.

    Raises InvalidInputError when another process holds it, or when others may look into it and what is in it
    is no party's state.
    """
    make_private_folder(folder, _STATE)
    return claim_folder(folder)


def claim_folder(folder: Path) -> IO[bytes]:
    """Create `folder` if needed, and lock it until the returned file is closed.

    The end of the process, however it comes, releases it too. Raises InvalidInputError when another process
    holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # Neither through a link to somebody else's file nor into a pipe, whoever put it there.
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
    file = os.fdopen(os.open(folder / "lock", flags, 0o600), "wb")
    until = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            # Whoever only looks whether it is claimed holds it for a moment.
            if time.monotonic() < until:
                time.sleep(0.02)
                continue
            file.close()
            raise InvalidInputError(
                f"another process is using the state folder {folder}; stop it first"
            ) from error
        return file


def is_claimed(folder: Path) -> bool:
    """Whether a process is using a state folder at this moment."""
    try:
        with (folder / "lock").open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False
