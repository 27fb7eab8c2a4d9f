"""Of a JPEG or PNG file only what its pixels need, and which way up it is.

Profiles, texts and EXIF beside the pixels are not used, but for the orientation. Decoders refuse files for
them: for a profile above 1 MB, a text with a wrong checksum, an odd number in EXIF. Versions of Pillow differ
in that. So decoders get a file without them.
"""

import struct
import zlib
from collections.abc import Iterator

from fedmedclip.edge_client.images.readers.codestreams import bare_jpeg, jpeg_segments, read_jpeg
from fedmedclip.edge_client.images.readers.refusal import RefusedFileError

JPEG, PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"

_UPRIGHT = 1
_EXIF_SEGMENT, _EXIF_MARK = 0xE1, b"Exif\0"
_ORIENTATION, _SHORT, _LONG = 0x0112, 3, 4
_MAX_ENTRIES = 1000
# Chunks beside the critical ones that decide about pixels: those of animations.
_ANIMATION = frozenset({b"acTL", b"fcTL", b"fdAT"})
# What ImageMagick wrote before PNG had a chunk for EXIF.
_EXIF_TEXT = (b"Raw profile type exif\0", b"Raw profile type APP1\0")
_MAX_TEXT = 1 << 20


def essential(content: bytes) -> tuple[bytes, int]:
    """Return a file without what its pixels do not need, and its EXIF orientation (1 to 8, 1 without one).

    Other kinds than JPEG and PNG are returned as they are, as is what cannot be understood. Raises
    RefusedFileError for a wrong checksum of a PNG's pixels.
    """
    if content.startswith(JPEG):
        stream = read_jpeg(content)
        pixels = content if stream is None else bare_jpeg(content, stream.colours)
        return pixels, _orientation_of_jpeg(content)
    if content.startswith(PNG):
        return _essential_png(content)
    return content, _UPRIGHT


def exif_orientation(exif: bytes) -> int:
    """Return the orientation that an EXIF block names, by its first directory; 1 where it names none.

    An EXIF block is laid out as a TIFF file (CIPA DC-008, 4.5); the mark before it may be there or not.
    """
    if exif.startswith(_EXIF_MARK):
        exif = exif[6:]
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None or len(exif) < 8:
        return _UPRIGHT
    at = int(struct.unpack_from(f"{order}L", exif, 4)[0])
    if at + 2 > len(exif):
        return _UPRIGHT
    count = struct.unpack_from(f"{order}H", exif, at)[0]
    for number in range(min(count, _MAX_ENTRIES)):
        entry = exif[at + 2 + 12 * number : at + 14 + 12 * number]
        if len(entry) < 12:
            break
        tag, kind = struct.unpack_from(f"{order}HH", entry)
        if tag == _ORIENTATION and kind in (_SHORT, _LONG):
            value = struct.unpack_from(f"{order}{'H' if kind == _SHORT else 'L'}", entry, 8)[0]
            return int(value) if 1 <= value <= 8 else _UPRIGHT
    return _UPRIGHT


def _orientation_of_jpeg(content: bytes) -> int:
    for marker, start, end in jpeg_segments(content):
        if marker == _EXIF_SEGMENT and content.startswith(_EXIF_MARK, start):
            return exif_orientation(content[start:end])
    return _UPRIGHT


def _essential_png(content: bytes) -> tuple[bytes, int]:
    kept, orientation = [PNG], _UPRIGHT
    for kind, start, end in _chunks(content):
        whole = kind is not None and _has_right_checksum(content, start, end)
        if kind is None or _is_critical(kind):
            if kind is not None and not whole:
                # Pillow does not look at those of pixels.
                raise RefusedFileError("corrupt")
            kept.append(content[start:end])
        elif whole and kind in _ANIMATION:
            kept.append(content[start:end])
        elif whole and (exif := _exif_of_chunk(kind, content[start + 8 : end - 4])):
            orientation = exif_orientation(exif)
    return b"".join(kept), orientation


def _chunks(content: bytes) -> Iterator[tuple[bytes | None, int, int]]:
    """(kind, start, end) of each chunk of a PNG file, and (None, start, end) of what is no whole chunk."""
    at = len(PNG)
    while at < len(content):
        end = at + 12 + int.from_bytes(content[at : at + 4], "big")
        if end > len(content):
            yield None, at, len(content)
            return
        kind = content[at + 4 : at + 8]
        yield kind, at, end
        if kind == b"IEND":
            # What some tools append is no part of the image.
            return
        at = end


def _is_critical(kind: bytes) -> bool:
    """Whether a decoder has to know a chunk: its name begins with a capital (PNG, section 5.4)."""
    return not kind[0] & 0x20


def _has_right_checksum(content: bytes, start: int, end: int) -> bool:
    return zlib.crc32(content[start + 4 : end - 4]) == int.from_bytes(content[end - 4 : end], "big")


def _exif_of_chunk(kind: bytes, value: bytes) -> bytes:
    if kind == b"eXIf":
        return value
    mark = next((mark for mark in _EXIF_TEXT if value.startswith(mark)), None)
    if mark is None or kind not in (b"tEXt", b"zTXt"):
        return b""
    written = value[len(mark) :]
    try:
        if kind == b"zTXt":
            written = zlib.decompressobj().decompress(written[1:], _MAX_TEXT)
        # An empty line, a name, a length, then lines of hexadecimal digits.
        return bytes.fromhex(b"".join(written.split(b"\n")[3:]).decode("ascii"))
    except (ValueError, zlib.error):
        return b""
