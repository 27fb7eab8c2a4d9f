"""What is for its owner only: keys, databases, state folders; and whether others can read it after all."""

import logging
import os
import stat
from pathlib import Path

from fedmedclip.protocol.errors import InvalidInputError

log = logging.getLogger("fedmedclip")

_READABLE_VARIABLE = "FEDMEDCLIP_ALLOW_READABLE_KEYS"
_OTHERS = 0o077


def make_private(path: Path) -> None:
    """Make an empty file for its owner only, or take away what others may do with the one there is."""
    if not path.exists():
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    elif (mode := stat.S_IMODE(path.stat().st_mode)) & _OTHERS:
        _change_mode(path, mode & ~_OTHERS)


def make_private_folder(folder: Path, ours: frozenset[str]) -> None:
    """Make a folder for its owner only, or close the one there is to others, which is said.

    Raises InvalidInputError for a folder that others may look into when it holds something, and nothing of
    `ours`: closing it, it may be the home of others, is for its owner to decide.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    mode = stat.S_IMODE(folder.stat().st_mode)
    if not mode & _OTHERS:
        return
    # A configuration often lies in the folder before the first start.
    names = {name for name in os.listdir(folder) if not name.endswith(".toml")}
    if mode & stat.S_ISVTX or (names and not names & ours):
        raise InvalidInputError(
            f"the state folder {folder} is open to other users and not this party's alone; name a folder of "
            f"its own, or close it: chmod 700 {folder}"
        )
    _change_mode(folder, mode & ~_OTHERS)
    log.warning("other users could look into the state folder %s; it is for its owner only now", folder)


def refuse_readers(path: Path, what: str) -> None:
    """Raise InvalidInputError when other users can read a secret (`readers_fault`).

    The environment variable FEDMEDCLIP_ALLOW_READABLE_KEYS=1 makes it a warning: for containers whose secrets
    cannot be mounted otherwise.
    """
    if fault := readers_fault(path):
        if not readers_allowed():
            raise InvalidInputError(f"{what} {path} {fault}")
        log.warning("%s %s %s", what, path, fault, extra={"event": "file.others_can_read"})


def readers_allowed() -> bool:
    """Whether the environment says that secrets may be readable for others."""
    return os.environ.get(_READABLE_VARIABLE) == "1"


def readers_fault(path: Path) -> str | None:
    """Return in words that other users can read a secret, and what to do; None when they cannot.

    As PostgreSQL has it for its key: a file of this user's own is for its owner only (0600 or less); one that
    belongs to another, such as root, may be lent to its group (0640 or less), which is how a service's
    secrets lie in /etc, and how systemd's credentials and Kubernetes' `fsGroup` show theirs. Windows has no
    such modes.
    """
    if not modes_count():
        return None
    try:
        status = path.stat()
    except OSError:
        return None
    lent = status.st_uid != os.geteuid() or status.st_uid == 0
    if not status.st_mode & (_OTHERS & ~stat.S_IRGRP if lent else _OTHERS):
        return None
    return f"can be read by other users of this machine; close it: chmod {640 if lent else 600} {path}"


def modes_count() -> bool:
    """Whether the permissions of files say who may read them."""
    return os.name == "posix"


def _change_mode(path: Path, mode: int) -> None:
    try:
        path.chmod(mode)
    except OSError as error:
        raise InvalidInputError(
            f"{path} can be read by other users, and cannot be closed to them ({error.strerror}); its owner "
            f"can: chmod go-rwx {path}"
        ) from error
