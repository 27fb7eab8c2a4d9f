"""What the header of a JPEG, JPEG-LS or JPEG 2000 stream says: size, depth, and colours where it can know.

Inside DICOM the size is compared with that of the file's header before any decoder sees the stream. Where the
two differ about depth or colours the stream is right: who recompresses often leaves the header as it was.
"""

import struct
from dataclasses import dataclass
from typing import Literal

CODESTREAM_2000 = b"\xff\x4f\xff\x51"
JP2_SIGNATURE = b"\0\0\0\x0cjP  "
LONGEST_JP2_HEADER = 1 << 16

Colours = Literal["RGB", "YBR"]

_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
_LOSSLESS = frozenset({0xC3, 0xC7, 0xCB, 0xCF, 0xF7})
_FRAME_HEADERS = frozenset({*range(0xC0, 0xD0), 0xF7}) - {0xC4, 0xC8, 0xCC}
_JFIF, _ADOBE = 0xE0, 0xEE
# Application segments and comments: no decoder needs them but for the colours, which JFIF and Adobe tell.
_ASIDE = frozenset({*range(0xE0, 0xF0), 0xFE})
_CODING_STYLE, _START_OF_TILE = 0xFF52, 0xFF90


@dataclass(frozen=True)
class Codestream:
    """`size` is (width, height, components), `precision` the bits of a sample.

    `colours` are those of the samples once decoded, None where the stream does not tell.
    """

    size: tuple[int, int, int]
    precision: int
    colours: Colours | None


def read_jpeg(stream: bytes) -> Codestream | None:
    """Read the frame header of a JPEG or JPEG-LS stream (ISO/IEC 10918-1 B.2.2); None when there is none.

    Colours are told by subsampled chroma, by component identifiers, and by the JFIF and Adobe segments
    (ISO/IEC 10918-5 and 10918-6); of lossless streams not by the identifiers 1, 2, 3, which they use for all.
    """
    jfif, adobe, frame = False, None, None
    for marker, at, end in jpeg_segments(stream):
        content = stream[at:end]
        if marker == _JFIF and content.startswith(b"JFIF"):
            jfif = True
        elif marker == _ADOBE and content.startswith(b"Adobe") and len(content) >= 12:
            adobe = content[11]
        elif marker in _FRAME_HEADERS and frame is None and len(content) >= 6:
            frame = marker, content
    if frame is None:
        return None
    marker, content = frame
    precision, height, width, count = struct.unpack_from(">BHHB", content)
    components = [content[6 + 3 * n : 9 + 3 * n] for n in range(count)]
    if count < 1 or len(components[-1]) < 3:
        return None
    colours = _jpeg_colours(components, marker in _LOSSLESS, jfif, adobe) if count == 3 else None
    return Codestream((width, height, count), precision, colours)


def _jpeg_colours(components: list[bytes], lossless: bool, jfif: bool, adobe: int | None) -> Colours | None:
    identifiers = bytes(component[0] for component in components)
    if len({component[1] for component in components}) > 1 and not lossless:
        return "YBR"
    if identifiers in (b"RGB", b"rgb"):
        return "RGB"
    if jfif:
        return "YBR"
    if adobe is not None:
        return "YBR" if adobe == 1 else "RGB"
    return "YBR" if identifiers == b"\1\2\3" and not lossless else None


def read_jpeg_2000(stream: bytes) -> Codestream | None:
    """Read the SIZ and COD segments of a JPEG 2000 codestream (ISO/IEC 15444-1 A.5.1 and A.6.1).

    None when it has none, or more tiles or components than an image has. With its component transformation,
    which decoders undo, a stream gives RGB; with subsampled chroma it holds YBR.
    """
    if not stream.startswith(CODESTREAM_2000) or len(stream) < 45:
        return None
    width, height, left, top, tile_width, tile_height = struct.unpack_from(">6L", stream, 8)
    count = struct.unpack_from(">H", stream, 40)[0]
    # A decoder keeps something for each tile.
    if width <= left or height <= top or min(tile_width, tile_height) < 16 or not 1 <= count <= 4:
        return None
    components = [stream[42 + 3 * n : 45 + 3 * n] for n in range(count)]
    if len(components[-1]) < 3:
        return None
    colours: Colours | None = None
    if count >= 3:
        if len({component[1:] for component in components}) > 1:
            colours = "YBR"
        elif _has_component_transformation(stream):
            colours = "RGB"
    precision = (components[0][0] & 0x7F) + 1
    return Codestream((width - left, height - top, count), precision, colours)


def codestream_of_jp2(content: bytes) -> bytes | None:
    """Return the codestream in a JP2 file, other content as it is; None for a JP2 file without one."""
    if not content.startswith(JP2_SIGNATURE):
        return content
    start = content[:LONGEST_JP2_HEADER].find(CODESTREAM_2000)
    return None if start < 0 else content[start:]


def bare_jpeg(stream: bytes, colours: Colours | None) -> bytes:
    """Return a JPEG stream without EXIF, profiles, comments; an Adobe segment tells its three colours.

    With `colours` None it keeps the one that it has, which tells the inks of four components.
    """
    told = b""
    if colours is not None:
        told = b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0" + (b"\1" if colours == "YBR" else b"\0")
    kept, behind = [stream[:2], told], 2
    for marker, at, end in jpeg_segments(stream):
        if marker not in _ASIDE or (marker == _ADOBE and colours is None):
            kept.append(stream[at - 4 : end])
        behind = end
    return b"".join([*kept, stream[behind:]])


def jpeg_segments(stream: bytes) -> list[tuple[int, int, int]]:
    """Return (marker, start and end of its content) of each segment of a JPEG before its first scan."""
    found: list[tuple[int, int, int]] = []
    at = 2
    while stream[:2] == b"\xff\xd8" and at + 4 <= len(stream) and stream[at] == 0xFF:
        marker = stream[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        if marker in (0x01, _START_OF_SCAN) or 0xD0 <= marker <= _END_OF_IMAGE:
            break
        end = at + 2 + int.from_bytes(stream[at + 2 : at + 4], "big")
        if end < at + 4 or end > len(stream):
            break
        found.append((marker, at + 4, end))
        at = end
    return found


def _has_component_transformation(stream: bytes) -> bool:
    at = 2
    while at + 10 <= len(stream):
        marker, length = struct.unpack_from(">HH", stream, at)
        if marker == _CODING_STYLE:
            return stream[at + 8] == 1
        if marker == _START_OF_TILE or marker < 0xFF00 or length < 2:
            return False
        at += 2 + length
    return False
