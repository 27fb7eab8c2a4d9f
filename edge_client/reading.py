"""Reading image files on a few threads, ahead of whoever needs them."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from edge_client.cores import available_cores
from edge_client.images import (
    UnreadableImageError,
    content_hash,
    decode_image,
    quiet_pillow,
    read_image_bytes,
)
from protocol.bundle import Preprocessing
from protocol.preprocessing import fit

Result = TypeVar("Result")

# More threads do not make the encoder faster, and each may hold one large image.
_THREADS = 2
# Enough results ahead to keep an encoder busy, few enough for a small memory.
_AHEAD = 32


@dataclass(frozen=True)
class DecodedImage:
    """An image ready for the encoder: `pixels` is uint8 (height, width, 3); the hash is of its file."""

    path: Path
    content_hash: bytes
    pixels: npt.NDArray[np.uint8]


def hash_images(paths: Iterable[Path]) -> Generator[bytes | UnreadableImageError, None, None]:
    """Yield the SHA-256 of each file's content (32 bytes), or why it cannot be read, in order."""
    return _map_ahead(_hash, paths)


def decode_images(
    paths: Iterable[Path], preprocessing: Preprocessing
) -> Generator[DecodedImage | UnreadableImageError, None, None]:
    """Yield each image as the encoder needs it, or why it cannot be used, in order.

    However many paths there are, only a few images are held at a time. Close the generator when it is not
    read to its end.
    """
    with quiet_pillow():
        yield from _map_ahead(partial(_decode, preprocessing=preprocessing), paths)


def _hash(path: Path) -> bytes | UnreadableImageError:
    try:
        return content_hash(read_image_bytes(path))
    except UnreadableImageError as error:
        return error


def _decode(path: Path, preprocessing: Preprocessing) -> DecodedImage | UnreadableImageError:
    try:
        content = read_image_bytes(path)
        return DecodedImage(path, content_hash(content), fit(decode_image(content, path), preprocessing))
    except UnreadableImageError as error:
        return error


def _map_ahead(function: Callable[[Path], Result], paths: Iterable[Path]) -> Generator[Result, None, None]:
    """Yield function(path) for each path, in order, computed by threads that are never far ahead."""
    waiting: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(min(_THREADS, available_cores()), thread_name_prefix="images")
    try:
        for path in paths:
            waiting.append(pool.submit(function, path))
            if len(waiting) >= _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
