"""A folder for durable state, used by one process at a time."""

import fcntl
from pathlib import Path
from typing import IO

from fedmedclip.protocol.errors import InvalidInputError


def claim_state_folder(folder: Path) -> IO[bytes]:
    """Create `folder` if needed, for its owner only, and lock it until the returned file is closed.

    The end of the process, however it comes, releases it too. Raises InvalidInputError when another process
    holds it.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = (folder / "lock").open("wb")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise InvalidInputError(
            f"another process is using the state folder {folder}; stop it first"
        ) from error
    return file
