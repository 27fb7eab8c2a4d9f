"""Image archives in numpy's `.npz` format, as MedMNIST publishes them (https://medmnist.com).

An archive holds `train_images` uint8 (N, height, width) or (N, height, width, 3) and `train_labels` (N, 1),
and the same for `val` and `test`; an axis of one channel, first or last, does not count. Images are read one
by one from the packed file: an array is never in memory as a whole, as one of a large edition would have
gigabytes.
"""

import hashlib
import zipfile
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from fedmedclip.edge_client.images.readers.refusal import RefusedFileError, check_size
from fedmedclip.edge_client.images.readers.stored_form import StoredForm

PARTS = ("train", "val", "test")

_MAX_LABELS = 1 << 24
# Images that were unpacked for one reader, for the others that read beside it and come a little later.
_KEPT = 256
_MAX_KEPT_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class ArchiveImage:
    """`content_hash` is SHA-256 over shape and pixels: two equal images are equal in whatever archive."""

    image: Image.Image
    content_hash: bytes


def archive_labels(path: Path) -> dict[str, npt.NDArray[np.int64]]:
    """Return the labels (N,) of each part that the archive has.

    Raises RefusedFileError when it cannot be read, has no such arrays, or has several labels for an image.
    """
    found: dict[str, npt.NDArray[np.int64]] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            names = set(archive.namelist())
            for part in PARTS:
                if not {f"{part}_images.npy", f"{part}_labels.npy"} <= names:
                    continue
                with archive.open(f"{part}_images.npy") as file:
                    count = _read_header(file)[0][0]
                with archive.open(f"{part}_labels.npy") as file:
                    found[part] = _read_labels(file, count)
    except RefusedFileError:
        raise
    # zipfile, zlib and numpy have many ways to say that an archive is damaged.
    except Exception as error:
        raise RefusedFileError("not an image archive") from error
    if not found:
        raise RefusedFileError("not an image archive")
    return found


def read_archive_image(path: Path, part: str, index: int) -> ArchiveImage:
    """Return one image of an archive, counted from 0. Raises RefusedFileError."""
    try:
        status = path.stat()
        pixels = _reader(path, part, (status.st_ino, status.st_size, status.st_mtime_ns)).read(index)
    except FileNotFoundError as error:
        raise RefusedFileError("missing") from error
    except RefusedFileError:
        raise
    except Exception as error:
        raise RefusedFileError("not an image archive") from error
    digest = hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes())
    return ArchiveImage(Image.fromarray(pixels).convert("RGB"), digest.digest())


def archive_form(path: Path, part: str) -> StoredForm:
    """Return how an archive stores the images of a part.

    Raises RefusedFileError, and what zipfile and numpy raise about damage.
    """
    with zipfile.ZipFile(path) as archive, archive.open(f"{part}_images.npy") as file:
        shape = _of_one_channel(_read_header(file)[0])
    return StoredForm("archive", 8, "colour" if len(shape) == 4 else "grey", (shape[2], shape[1]))


class _ArrayReader:
    """Reads the images of one array forwards; to go back further than `_KEPT` images it starts anew."""

    def __init__(self, path: Path, part: str) -> None:
        self._path, self._name = path, f"{part}_images.npy"
        self._lock = Lock()
        self._kept: OrderedDict[int, npt.NDArray[np.uint8]] = OrderedDict()
        self._archive: zipfile.ZipFile | None = None
        self._start()

    def read(self, index: int) -> npt.NDArray[np.uint8]:
        with self._lock:
            if index not in self._kept:
                if not 0 <= index < self._shape[0]:
                    raise RefusedFileError("no such image")
                if index < self._next:
                    self._start()
                while self._next <= index:
                    self._keep(self._read_next())
            return self._kept[index]

    def close(self) -> None:
        if self._archive is not None:
            self._archive.close()

    def _start(self) -> None:
        self.close()
        self._archive = zipfile.ZipFile(self._path)
        self._file = self._archive.open(self._name)
        self._shape, dtype, fortran_order = _read_header(self._file)
        if dtype != np.uint8:
            raise RefusedFileError(f"an archive of {dtype.name} values")
        if fortran_order:
            raise RefusedFileError("an archive in Fortran order")
        self._shape = _of_one_channel(self._shape)
        if len(self._shape) not in (3, 4) or self._shape[3:] not in ((), (3,)):
            raise RefusedFileError("an archive of volumes")
        check_size(self._shape[2], self._shape[1])
        self._next = 0

    def _read_next(self) -> npt.NDArray[np.uint8]:
        size = int(np.prod(self._shape[1:]))
        content = self._file.read(size)
        if len(content) < size:
            raise RefusedFileError("truncated")
        return np.frombuffer(content, np.uint8).reshape(self._shape[1:])

    def _keep(self, pixels: npt.NDArray[np.uint8]) -> None:
        self._kept[self._next] = pixels
        self._next += 1
        while len(self._kept) > 1 and (
            len(self._kept) > _KEPT or len(self._kept) * pixels.nbytes > _MAX_KEPT_BYTES
        ):
            self._kept.popitem(last=False)


_readers: OrderedDict[tuple[Any, ...], _ArrayReader] = OrderedDict()
_readers_lock = Lock()


def _reader(path: Path, part: str, identity: tuple[int, ...]) -> _ArrayReader:
    """The reader of an array; those used last stay open."""
    key = (path, part, identity)
    with _readers_lock:
        if key not in _readers:
            _readers[key] = _ArrayReader(path, part)
            while len(_readers) > len(PARTS):
                # Not closed here: another thread may be reading from it. It closes when that one lets go.
                _readers.popitem(last=False)
        _readers.move_to_end(key)
        return _readers[key]


def _of_one_channel(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape without its axis of one channel, first or last: the bytes are those of images without it."""
    if len(shape) == 4 and 1 in (shape[1], shape[3]):
        return tuple(np.delete(shape, 3 if shape[3] == 1 else 1).tolist())
    return shape


def _read_header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any], bool]:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran_order, dtype = read(file)
    return shape, dtype, fortran_order


def _read_labels(file: IO[bytes], count: int) -> npt.NDArray[np.int64]:
    shape, dtype, _ = _read_header(file)
    if shape not in ((count,), (count, 1)):
        raise RefusedFileError("an archive with several labels for an image")
    if dtype.kind not in "iu":
        raise RefusedFileError(f"an archive of {dtype.name} labels")
    if count > _MAX_LABELS:
        raise RefusedFileError("too many images")
    content = file.read(count * dtype.itemsize)
    return np.frombuffer(content, dtype).astype(np.int64).reshape(-1)
