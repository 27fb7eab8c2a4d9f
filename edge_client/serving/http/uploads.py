"""Files as they come in: small ones in memory, others into the queue's folder, and none of them too long."""

import asyncio
import hashlib
import os
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

from starlette.types import Receive

from fedmedclip.edge_client.serving.http.multipart import (
    FileBegins,
    FileEnds,
    MultipartError,
    MultipartReader,
)
from fedmedclip.edge_client.serving.http.settings import HttpSettings
from fedmedclip.protocol.web.problems import RefusedError

IN_MEMORY = 64 << 10
_WRITTEN_AT_ONCE = 256 << 10
# As long a silence inside a body is a client that is gone or wants to hold a connection.
SILENCE_SECONDS = 20.0


class ClientGoneError(Exception):
    """The client hung up; there is nobody to answer."""


class Upload:
    """One file: as long as it is small its bytes, then a file in `folder`, which only its owner can read."""

    def __init__(self, folder: Path) -> None:
        self.size = 0
        self._folder = folder
        self._digest = hashlib.sha256()
        self._held = bytearray()
        self._path: Path | None = None

    @property
    def content(self) -> bytes | Path:
        """The bytes, or the file that holds them; complete after `finish`."""
        return bytes(self._held) if self._path is None else self._path

    @property
    def digest(self) -> str:
        """The SHA-256 of the bytes so far, 64 hexadecimal digits."""
        return self._digest.hexdigest()

    async def write(self, data: bytes) -> None:
        """Add the next bytes. Raises OSError where they cannot be stored."""
        self.size += len(data)
        self._digest.update(data)
        self._held += data
        if len(self._held) > (IN_MEMORY if self._path is None else _WRITTEN_AT_ONCE):
            await asyncio.to_thread(self._spill)

    async def finish(self) -> None:
        """Write what is still held, where there is a file. Raises OSError."""
        if self._path is not None and self._held:
            await asyncio.to_thread(self._spill)

    def discard(self) -> None:
        """Remove the file, if it is still where it was written."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def _spill(self) -> None:
        if self._path is None:
            descriptor, name = tempfile.mkstemp(prefix="http-", dir=self._folder)
            self._path = Path(name)
        else:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND)
        with os.fdopen(descriptor, "wb") as file:
            file.write(self._held)
        self._held.clear()


async def received(
    receive: Receive, settings: HttpSettings, boundary: bytes | None, folder: Path, into: list[Upload]
) -> None:
    """Add the files of a request's body to `into`: one, or with a `boundary` those of `multipart/form-data`.

    Whoever calls discards them, whatever happens. Raises RefusedError for a body that is too long, too slow,
    empty or malformed, ClientGoneError, and OSError where the disk does not take it.
    """
    reader = None if boundary is None else MultipartReader(boundary)
    if reader is None:
        into.append(Upload(folder))
    async for data in _pieces(receive, settings):
        if reader is None:
            await into[0].write(data)
            continue
        try:
            for event in reader.feed(data):
                await _take(event, settings, folder, into)
        except MultipartError as error:
            raise RefusedError(400, str(error)) from error
    if reader is not None:
        try:
            reader.finish()
        except MultipartError as error:
            raise RefusedError(400, str(error)) from error
    if not into:
        raise RefusedError(400, "the body holds no file")
    for number, upload in enumerate(into, 1):
        if upload.size == 0:
            raise RefusedError(400, "the body is empty" if reader is None else f"file {number} is empty")
        await upload.finish()


async def _take(
    event: FileBegins | FileEnds | bytes, settings: HttpSettings, folder: Path, into: list[Upload]
) -> None:
    if isinstance(event, bytes):
        await into[-1].write(event)
    elif isinstance(event, FileBegins):
        if len(into) == settings.most_files:
            raise RefusedError(413, f"at most {settings.most_files} files in one request; send more requests")
        into.append(Upload(folder))


async def _pieces(receive: Receive, settings: HttpSettings) -> AsyncIterator[bytes]:
    """Yield a body as it comes, bounded in length and time."""
    size, more = 0, True
    deadline = time.monotonic() + settings.longest_upload_seconds
    while more:
        patience = min(SILENCE_SECONDS, deadline - time.monotonic())
        try:
            async with asyncio.timeout(max(0.0, patience)):
                message = await receive()
        except TimeoutError as error:
            raise RefusedError(408, "the body came too slowly, or stopped") from error
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        data, more = message.get("body", b""), message.get("more_body", False)
        size += len(data)
        if size > settings.largest_upload_bytes:
            raise too_large(settings)
        if data:
            yield data


def too_large(settings: HttpSettings) -> RefusedError:
    """Return the answer to a body that is too long."""
    return RefusedError(
        413,
        f"the body has more than {settings.largest_upload_bytes} bytes (largest_upload_bytes of [http])",
    )
