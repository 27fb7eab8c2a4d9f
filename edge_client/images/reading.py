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

from fedmedclip.edge_client.cores import available_cores
from fedmedclip.edge_client.images.appearance import Appearance, appearance_of
from fedmedclip.edge_client.images.opening import (
    ImageIdentity,
    UnreadableImageError,
    identify_image,
    quiet_decoders,
    read_identified,
)
from fedmedclip.edge_client.images.readers.settings import DEFAULT_READING, ReaderSettings
from fedmedclip.protocol.bundle.bundle import Preprocessing
from fedmedclip.protocol.bundle.preprocessing import fit

Item = TypeVar("Item")
Result = TypeVar("Result")

# More threads do not make the encoder faster, and each may hold one large image.
_THREADS = 2
# Enough results ahead to keep an encoder busy, few enough for a small memory.
_AHEAD = 32


@dataclass(frozen=True)
class DecodedImage:
    """An image ready for the encoder: `pixels` is uint8 (height, width, 3).

    `content_hash` is SHA-256 of its file, 32 bytes; `key`, 32 bytes, also covers how the file was read.
    `appearance` is None unless it was asked for.
    """

    path: Path
    content_hash: bytes
    key: bytes
    pixels: npt.NDArray[np.uint8]
    appearance: Appearance | None = None


def identify_images(
    paths: Iterable[Path], settings: ReaderSettings = DEFAULT_READING
) -> Generator[ImageIdentity | UnreadableImageError, None, None]:
    """Yield content hash and key of each image, without decoding it, or why it cannot be read, in order."""
    return map_ahead(partial(_identify, settings=settings), paths)


def decode_images(
    paths: Iterable[Path],
    preprocessing: Preprocessing,
    settings: ReaderSettings = DEFAULT_READING,
    *,
    appearances: bool = False,
) -> Generator[DecodedImage | UnreadableImageError, None, None]:
    """Yield each image as the encoder needs it, or why it cannot be used, in order.

    Paths are files or addresses (`readers.address`). However many there are, only a few images are held at a
    time. Close the generator when it is not read to its end.
    """
    decode = partial(_decode, preprocessing=preprocessing, settings=settings, appearances=appearances)
    with quiet_decoders():
        yield from map_ahead(decode, paths)


def view_images(
    paths: Iterable[Path], settings: ReaderSettings = DEFAULT_READING
) -> Generator[tuple[bytes, Appearance] | UnreadableImageError, None, None]:
    """Yield key and appearance of each image, or why it cannot be used, in order, as `decode_images` does."""
    with quiet_decoders():
        yield from map_ahead(partial(_view, settings=settings), paths)


def _identify(path: Path, settings: ReaderSettings) -> ImageIdentity | UnreadableImageError:
    try:
        return identify_image(path, settings)
    except UnreadableImageError as error:
        return _alone(error)


def _decode(
    path: Path, preprocessing: Preprocessing, settings: ReaderSettings, appearances: bool
) -> DecodedImage | UnreadableImageError:
    try:
        identity, image = read_identified(path, settings)
        appearance = appearance_of(image) if appearances else None
        pixels = fit(image, preprocessing)
        return DecodedImage(path, identity.content_hash, identity.key, pixels, appearance)
    except UnreadableImageError as error:
        return _alone(error)


def _view(path: Path, settings: ReaderSettings) -> tuple[bytes, Appearance] | UnreadableImageError:
    try:
        identity, image = read_identified(path, settings)
        return identity.key, appearance_of(image)
    except UnreadableImageError as error:
        return _alone(error)


def _alone(error: UnreadableImageError) -> UnreadableImageError:
    """The error without its traceback and causes, which hold the file's content and what a decoder said of
    it.
    """
    return UnreadableImageError(error.path, error.reason)


def map_ahead(function: Callable[[Item], Result], items: Iterable[Item]) -> Generator[Result, None, None]:
    """Yield function(item) for each item, in order, computed by threads that are never far ahead."""
    waiting: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(min(_THREADS, available_cores()), thread_name_prefix="images")
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) >= _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
