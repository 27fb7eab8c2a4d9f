"""The data set of a C-STORE, on disk as it comes: never more than one PDU of it is in memory."""

import errno
import hashlib
import io
import os
import threading
import uuid
from collections.abc import Callable
from pathlib import Path

from fedmedclip.edge_client.serving.dicom.refusal import (
    NOT_UNDERSTOOD,
    OUT_OF_RESOURCES,
    RefusedStoreError,
)


class ReceivedFile(io.BytesIO):
    """What pynetdicom takes for the memory that it writes a data set to, and is a file in `folder`.

    `head` gives the file's beginning, up to the data set, when its first bytes come; what it raises is passed
    on. A data set that is too large or does not fit on the disk is read on and dropped, and `file()` raises
    why: a sender listens only when it has sent all. One that goes on to twice the size raises
    ValueError. `size` counts the bytes of the data set. Threads may discard it while another writes.
    """

    def __init__(self, folder: Path, largest: int, head: Callable[[], bytes]) -> None:
        super().__init__()
        self.size = 0
        self._path = folder / f"dicom-{uuid.uuid4().hex}"
        self._largest = largest
        self._head = head
        self._file: io.FileIO | None = None
        self._digest = hashlib.sha256()
        self._refusal: RefusedStoreError | None = None
        self._discarded = False
        self._lock = threading.Lock()

    def write(self, part: "bytes | bytearray | memoryview") -> int:  # type: ignore[override]
        """Append to the data set; see the class for what stops it."""
        with self._lock:
            self.size += len(part)
            if self.size > 2 * self._largest:
                raise ValueError("the data set goes on and on")
            if self._refusal is None and self.size > self._largest:
                self._refuse(RefusedStoreError(NOT_UNDERSTOOD, "larger than this node takes"))
            if self._refusal is None and not self._discarded:
                self._append(part)
        return len(part)

    def file(self) -> Path:
        """Return the whole file, closed. Raises RefusedStoreError."""
        with self._lock:
            if self._refusal is not None:
                raise self._refusal
            if self._file is None:
                raise RefusedStoreError(NOT_UNDERSTOOD, "no data set")
            self._file.close()
            return self._path

    @property
    def digest(self) -> str:
        """The SHA-256 of the data set as it came, in hexadecimal digits."""
        return self._digest.hexdigest()

    def discard(self) -> None:
        """Remove the file if it still lies where it was written."""
        with self._lock:
            self._discarded = True
            self._remove()

    def _append(self, part: "bytes | bytearray | memoryview") -> None:
        self._digest.update(part)
        try:
            if self._file is None:
                descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                self._file = io.FileIO(descriptor, "w")
                _write_all(self._file, self._head())
            _write_all(self._file, part)
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            comment = "the disk is full" if full else "cannot be written to disk"
            self._refuse(RefusedStoreError(OUT_OF_RESOURCES, comment))

    def _refuse(self, refusal: RefusedStoreError) -> None:
        self._refusal = refusal
        self._remove()

    def _remove(self) -> None:
        if self._file is not None:
            self._file.close()
            self._path.unlink(missing_ok=True)


def _write_all(file: io.FileIO, part: "bytes | bytearray | memoryview") -> None:
    view = memoryview(part)
    while view:
        view = view[file.write(view) :]
