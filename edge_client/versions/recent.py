"""The embeddings of the images that were answered last, without labels: a new version is tried on them.

Nothing else is kept of an image: no pixels, no name, no id, no answer, and of the time only in which quarter
of the retention it came, which erasing needs. Embeddings are as personal as images: the file is for its owner
only.
"""

import logging
import time
from collections import deque
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load, save

from fedmedclip.edge_client.versions.folder import FOLDER
from fedmedclip.protocol.new_files import write_new_file
from fedmedclip.protocol.paths import open_regular_file, read_at_most
from fedmedclip.protocol.visible import visible

log = logging.getLogger("fedmedclip")

Half = npt.NDArray[np.float16]
RECENT = "recent.safetensors"
MOST_RECENT_IMAGES = 10_000
_MOST_BYTES = 1 << 28
_DAY = 86400.0
_QUARTERS = 4


class RecentImages:
    """Keeps the last `most` embeddings, each for `days` at most, in the file at `path`. For several threads.

    `bundle` is the digest of the bundle that they are of (32 bytes): those of another one are forgotten. So
    are all where no site keeps versions beside the file: nobody would try any on them.
    """

    def __init__(self, path: Path, bundle: bytes, most: int, days: float) -> None:
        self._path = path
        self._bundle = bundle
        self._retention = days * _DAY
        self._lock = Lock()
        self._fault = ""
        self._kept: deque[tuple[int, Half]] = deque(_read(path, bundle), most)
        # What cannot be used, or is not to be kept any longer, does not stay on the disk.
        self._changed = path.exists() and not self._kept

    def note(self, embedding: npt.NDArray[np.float32]) -> None:
        """Take in an image that was answered, by its embedding (D,)."""
        quarter = self._retention / _QUARTERS
        since = int(time.time() // quarter * quarter)
        with self._lock:
            self._kept.append((since, embedding.astype(np.float16)))
            self._changed = True

    def save(self) -> None:
        """Erase what is too old, and write the file if something changed. What hinders that is said once."""
        now = time.time()
        with self._lock:
            before = len(self._kept)
            # An image goes up to a quarter too soon and never too late, also where the clock was set back.
            young = [item for item in self._kept if now - self._retention <= item[0] <= now]
            if not (self._path.parent / FOLDER).is_dir():
                young = []
            self._kept = deque(young, self._kept.maxlen)
            if len(young) == before and not self._changed:
                return
            self._changed = False
        try:
            if young:
                write_new_file(self._path, _encoded(self._bundle, young), private=True, alone=True)
            else:
                self._path.unlink(missing_ok=True)
        except OSError as error:
            fault = f"recent images are not kept ({error.strerror}); it is tried again"
            if fault != self._fault:
                log.warning("%s: %s", visible(self._path), fault, extra={"event": "version.recent_not_kept"})
            self._fault, self._changed = fault, True
        else:
            self._fault = ""


def recent_embeddings(path: Path, bundle: bytes, size: int) -> npt.NDArray[np.float32]:
    """Return the embeddings that a service kept, of the bundle with this digest, float32 (N, `size`).

    None of them where there is no such file, or it cannot be used.
    """
    found = [embedding for _, embedding in _read(path, bundle) if len(embedding) == size]
    return np.array(found, np.float32).reshape(len(found), size)


def _encoded(bundle: bytes, kept: list[tuple[int, Half]]) -> bytes:
    arrays: dict[str, npt.NDArray[Any]] = {
        "bundle": np.frombuffer(bundle, np.uint8),
        "since": np.array([since for since, _ in kept], np.int64),
        "embeddings": np.array([embedding for _, embedding in kept], np.float16),
    }
    encoded: bytes = save(arrays)
    return encoded


def _read(path: Path, bundle: bytes) -> list[tuple[int, Half]]:
    try:
        with open_regular_file(path) as file:
            arrays = load(read_at_most(file, _MOST_BYTES))
        since, embeddings = arrays["since"], arrays["embeddings"]
        if embeddings.ndim != 2 or since.shape != (len(embeddings),) or embeddings.dtype != np.float16:
            raise ValueError("its arrays do not fit together")
        if arrays["bundle"].tobytes() != bundle or not np.isfinite(embeddings).all():
            return []
        return list(zip(since.astype(np.int64).tolist(), embeddings, strict=True))
    except FileNotFoundError:
        return []
    except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
        log.warning("%s cannot be used (%s); it is begun anew", visible(path), error)
        return []
