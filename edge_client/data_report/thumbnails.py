"""Small pictures for the page, as data that stands in the page itself."""

import base64
import io
from collections.abc import Iterable
from contextlib import closing
from functools import partial
from pathlib import Path

from PIL import Image

from fedmedclip.edge_client.images.opening import UnreadableImageError, quiet_decoders, read_image
from fedmedclip.edge_client.images.readers.settings import ReaderSettings
from fedmedclip.edge_client.images.reading import map_ahead

LONGEST_SIDE = 160
_QUALITY = 80


def thumbnails(paths: Iterable[Path], settings: ReaderSettings) -> dict[Path, str]:
    """Return a JPEG of each image, at most `LONGEST_SIDE` pixels wide and high, as a data URI.

    What can no longer be read is left out. No header of the original goes along.
    """
    wanted = list(dict.fromkeys(paths))
    with quiet_decoders(), closing(map_ahead(partial(_thumbnail, settings=settings), wanted)) as made:
        return {path: uri for path, uri in zip(wanted, made, strict=True) if uri}


def _thumbnail(path: Path, settings: ReaderSettings) -> str:
    try:
        image = read_image(path, settings)
    except UnreadableImageError:
        return ""
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    small = Image.new("RGB", image.size)
    small.paste(image)
    encoded = io.BytesIO()
    small.save(encoded, "JPEG", quality=_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(encoded.getvalue()).decode()}"
