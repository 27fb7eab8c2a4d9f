"""A folder that may go away, such as a share that is unmounted, and may lead nowhere else meanwhile."""

import os
from pathlib import Path


class Place:
    """A folder, and the mount point that it lay on at the start.

    An unmounted share leaves an empty folder of the disk below, which must neither be taken for the share
    emptied nor be written to: what was a mount point has to be one still.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._mount = _mount_point(path)

    def fault(self) -> str | None:
        """Return in words why the folder cannot be used now, None when it can."""
        if not self.path.is_dir():
            return f"the folder {self.path} is gone; the service goes on with it as soon as it is there again"
        if not os.path.ismount(self._mount):
            return f"the folder {self.path} is gone, for nothing is mounted at {self._mount}; mount it again"
        return None

    def inside(self, relative: str) -> Path | None:
        """Return the path of what lies at `relative`; None where its folder, by a link, is outside."""
        path = self.path / relative
        real = os.path.realpath(path.parent)
        root = os.path.realpath(self.path)
        return path if os.path.commonpath([real, root]) == root else None


def _mount_point(path: Path) -> str:
    step = os.path.realpath(path)
    while not os.path.ismount(step):
        step = os.path.dirname(step)
    return step
