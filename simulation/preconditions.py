"""What a long command needs, looked at before it begins: packages, disk, a broker."""

import os
import shutil
import socket
from importlib.util import find_spec
from pathlib import Path

from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.link.settings import split_host_port

_BROKER_SECONDS = 5.0
_MEGABYTE = 1_000_000


def require_packages(command: str, extra: str, *modules: str) -> None:
    """Raise InvalidInputError that names every module which `command` needs and that is not installed.

    They are not imported: PyTorch alone would take seconds.
    """
    if missing := [module for module in modules if not _is_installed(module)]:
        raise InvalidInputError(
            f"{command} needs {', '.join(missing)}, not installed here; "
            f"pip install 'fedmedclip-edge[{extra}]'"
        )


def require_disk(folder: Path, megabytes: int) -> None:
    """Raise InvalidInputError when there is less free space where a folder is, or will be made.

    What an earlier run left in it counts as free, for it is replaced.
    """
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.is_dir())
    free = shutil.disk_usage(existing).free + _bytes_in(folder)
    if free < megabytes * _MEGABYTE:
        raise InvalidInputError(
            f"{existing} has {free // _MEGABYTE} MB free, about {megabytes} MB are needed; make room, or "
            "give a folder on another disk"
        )


def require_broker(address: str) -> None:
    """Raise InvalidInputError unless something listens at HOST:PORT."""
    host, port = split_host_port(address, "--broker")
    try:
        socket.create_connection((host, port), timeout=_BROKER_SECONDS).close()
    except OSError as error:
        raise InvalidInputError(
            f"no broker answers at --broker {address} ({error.strerror or error}); start it, or use "
            "--broker embedded"
        ) from error


def require_loopback() -> None:
    """Raise InvalidInputError when no port of this machine's own can be had for a broker."""
    try:
        socket.create_server(("127.0.0.1", 0)).close()
    except OSError as error:
        raise InvalidInputError(
            f"no port at 127.0.0.1 can be opened for a broker ({error.strerror}); give one "
            "elsewhere with --broker HOST:PORT"
        ) from error


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ValueError:  # somebody keeps it from being imported
        return False


def _bytes_in(folder: Path) -> int:
    return sum(
        os.lstat(os.path.join(current, name)).st_size
        for current, _, names in os.walk(folder)
        for name in names
    )
