"""Profiles, texts and EXIF beside sound pixels never cost the picture, whatever is in them."""

import io
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fedmedclip.edge_client.images.opening import UnreadableImageError, decode_image
from fedmedclip.edge_client.images.readers.essentials import exif_orientation
from fedmedclip.edge_client.images.readers.settings import ReaderSettings
from tests.edge_client.conftest import random_pixels

RGB = random_pixels(1)
PNG = b"\x89PNG\r\n\x1a\n"
# Larger than any decoder takes for a text, and quickly packed.
LARGE = bytes(3 << 20)


def shown(content: bytes) -> npt.NDArray[Any]:
    return np.asarray(decode_image(content, Path("photo")))


def chunk(kind: bytes, value: bytes, *, right: bool = True) -> bytes:
    checksum = zlib.crc32(kind + value) ^ (0 if right else 1)
    return struct.pack(">I", len(value)) + kind + value + struct.pack(">I", checksum)


def png(*chunks: bytes, behind: Sequence[bytes] = ()) -> bytes:
    """A PNG with chunks between its header and its pixels, and others behind the pixels."""
    header = struct.pack(">IIBBBBB", RGB.shape[1], RGB.shape[0], 8, 2, 0, 0, 0)
    rows = zlib.compress(b"".join(b"\0" + row.tobytes() for row in RGB))
    parts = [chunk(b"IHDR", header), *chunks, chunk(b"IDAT", rows), *behind, chunk(b"IEND", b"")]
    return PNG + b"".join(parts)


def exif(*entries: tuple[int, int, int, bytes], order: str = "<") -> bytes:
    """An EXIF block of one directory of (tag, type, count, four bytes)."""
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}L", 8)
    written = b"".join(struct.pack(f"{order}HHL", *entry[:3]) + entry[3] for entry in entries)
    return head + struct.pack(f"{order}H", len(entries)) + written + b"\0\0\0\0"


def turned(orientation: int, order: str = "<") -> tuple[int, int, int, bytes]:
    return 0x0112, 3, 1, struct.pack(f"{order}HH", orientation, 0)


def jpeg(*segments: tuple[int, bytes]) -> bytes:
    """A JPEG with application segments behind its first marker."""
    content = io.BytesIO()
    Image.fromarray(RGB).save(content, "JPEG", quality=95)
    written = b"".join(
        b"\xff" + bytes([mark]) + struct.pack(">H", len(value) + 2) + value for mark, value in segments
    )
    return content.getvalue()[:2] + written + content.getvalue()[2:]


ASIDE = {
    "profile above 1 MB": chunk(b"iCCP", b"scanner\0\0" + zlib.compress(LARGE)),
    "profile that is none": chunk(b"iCCP", b"x"),
    "packed text above 1 MB": chunk(b"zTXt", b"Comment\0\0" + zlib.compress(LARGE)),
    "text above 1 MB": chunk(b"tEXt", b"Comment\0" + LARGE),
    "international text above 1 MB": chunk(b"iTXt", b"Comment\0\1\0\0\0" + zlib.compress(LARGE)),
    "packed text that is not": chunk(b"zTXt", b"Comment\0\0abc"),
    "text with a wrong checksum": chunk(b"tEXt", b"Comment\0abc", right=False),
    "profile with a wrong checksum": chunk(b"iCCP", b"a\0\0" + zlib.compress(b"abc"), right=False),
    "EXIF with a wrong checksum": chunk(b"eXIf", exif(turned(6)), right=False),
    "EXIF that is none": chunk(b"eXIf", b"\xff" * 30),
    "EXIF cut off": chunk(b"eXIf", exif(turned(6))[:15]),
    "sizes that are none": chunk(b"pHYs", b"a")
    + chunk(b"gAMA", b"")
    + chunk(b"cHRM", b"abc")
    + chunk(b"sRGB", b""),
    "transparency that is none": chunk(b"tRNS", b""),
    "transparency with a wrong checksum": chunk(b"tRNS", bytes(6), right=False),
    "an animation with a wrong checksum": chunk(b"acTL", struct.pack(">LL", 2, 0), right=False),
    "chunks of others": chunk(b"vpAg", b"abc") + chunk(b"orNT", b"", right=False) + chunk(b"prVt", LARGE),
    "many texts": b"".join(chunk(b"zTXt", b"a\0\0" + zlib.compress(LARGE[: 1 << 19])) for _ in range(200)),
}


@pytest.mark.parametrize("name", ASIDE)
def test_what_is_beside_the_pixels_of_a_png(name: str) -> None:
    np.testing.assert_array_equal(shown(png(ASIDE[name])), RGB)
    np.testing.assert_array_equal(shown(png(behind=[ASIDE[name]])), RGB)


@pytest.mark.parametrize("appended", [b"\0", b"\0" * 40, b"\0\0\0\1ABCD12345", b"trailer of an editor" * 9])
def test_what_is_behind_the_end(appended: bytes) -> None:
    np.testing.assert_array_equal(shown(png() + appended), RGB)
    np.testing.assert_array_equal(shown(jpeg() + appended), shown(jpeg()))


def test_bytes_between_the_segments_of_a_jpeg() -> None:
    """Decoders look for the next marker; so what cannot be followed is left as it is."""
    content = jpeg((0xE1, b"Exif\0\0" + exif(turned(6))))
    at = content.index(b"\xff\xe0")
    np.testing.assert_array_equal(shown(content[:at] + b"\0\0\0" + content[at:]), np.rot90(shown(jpeg()), -1))


@pytest.mark.parametrize("kind", [b"IHDR", b"IDAT"])
def test_a_wrong_checksum_of_pixels_is_damage(kind: bytes) -> None:
    content = bytearray(png())
    at = content.index(kind)
    content[at + 4 + int.from_bytes(content[at - 4 : at], "big")] ^= 1
    with pytest.raises(UnreadableImageError, match="corrupt"):
        shown(bytes(content))


PROFILES = [(0xE2, b"ICC_PROFILE\0" + bytes([number + 1, 40]) + bytes(65_000)) for number in range(40)]
SEGMENTS: dict[str, list[tuple[int, bytes]]] = {
    "profile above 1 MB": PROFILES,
    "profile in a wrong order": PROFILES[::-2],
    "JFIF cut off": [(0xE0, b"JFIF\0\1")],
    "EXIF that is none": [(0xE1, b"Exif\0\0" + b"\xff" * 30)],
    "EXIF cut off": [(0xE1, b"Exif\0\0" + exif(turned(6))[:15])],
    "EXIF of nothing": [(0xE1, b"Exif\0\0")],
    "photographer's resources": [(0xED, b"Photoshop 3.0\08BIM\4\4\0\0\xff\xff\xff\xff")],
    "multi-picture index": [(0xE2, b"MPF\0" + b"\xff" * 40)],
    "FlashPix": [(0xE2, b"FPXR\0")],
    "text": [(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x" + bytes(60_000)), (0xFE, b"\xff" * 60_000)],
    "Adobe cut off": [(0xEE, b"Adobe")],
}


@pytest.mark.parametrize("name", SEGMENTS)
def test_what_is_beside_the_pixels_of_a_jpeg(name: str) -> None:
    np.testing.assert_array_equal(shown(jpeg(*SEGMENTS[name])), shown(jpeg()))


@pytest.mark.parametrize(
    ("entries", "orientation"),
    [
        ([turned(6)], 6),
        # A resolution of -1/0, a maker's note beyond the end, a pointer to nowhere, a type that is none.
        ([(0x011A, 10, 1, struct.pack("<L", 62)), turned(6)], 6),
        ([turned(6), (0x8769, 4, 1, struct.pack("<L", 1 << 30))], 6),
        ([(0x8769, 4, 1, struct.pack("<L", 8)), (0x8825, 4, 1, b"\xff" * 4), turned(6)], 6),
        ([(0x0100, 99, 1 << 31, b"\xff" * 4), turned(6)], 6),
        ([(0x0112, 4, 1, struct.pack("<L", 6))], 6),
        ([turned(0)], 1),
        ([turned(9)], 1),
        ([(0x0112, 2, 1, b"6\0\0\0")], 1),
        ([], 1),
    ],
)
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_of_exif_the_orientation_alone_is_used(
    kind: str, entries: list[tuple[int, int, int, bytes]], orientation: int
) -> None:
    block = exif(*entries) + struct.pack("<ll", -1, 0)
    if kind == "PNG":
        upright, content = png(), png(chunk(b"eXIf", block))
    elif kind == "JPEG":
        upright, content = jpeg(), jpeg((0xE1, b"Exif\0\0" + block))
    else:
        packed = io.BytesIO()
        Image.fromarray(RGB).save(packed, "WEBP", lossless=True, exif=b"Exif\0\0" + block)
        upright, content = png(), packed.getvalue()
    expected = np.rot90(shown(upright), -1) if orientation == 6 else shown(upright)
    np.testing.assert_array_equal(shown(content), expected)


@pytest.mark.parametrize("packed", [False, True])
def test_the_orientation_in_a_text_of_imagemagick(packed: bool) -> None:
    block = b"Exif\0\0" + exif(turned(6, ">"), order=">")
    written = b"\nexif\n" + f"{len(block):8}".encode() + b"\n" + block.hex().encode() + b"\n"
    name = b"Raw profile type exif\0"
    text = chunk(b"zTXt", name + b"\0" + zlib.compress(written)) if packed else chunk(b"tEXt", name + written)
    np.testing.assert_array_equal(shown(png(text)), np.rot90(RGB, -1))


@given(st.binary(max_size=120))
def test_any_exif_has_an_orientation(content: bytes) -> None:
    assert 1 <= exif_orientation(content) <= 8
    np.testing.assert_array_equal(np.sort(shown(png(chunk(b"eXIf", content))), None), np.sort(RGB, None))


@pytest.mark.parametrize("kind", ["TIFF", "WEBP"])
def test_a_large_profile_in_other_kinds(kind: str) -> None:
    content = io.BytesIO()
    options: dict[str, Any] = {"lossless": True} if kind == "WEBP" else {"description": "a" * (2 << 20)}
    Image.fromarray(RGB).save(content, kind, icc_profile=LARGE, **options)
    np.testing.assert_array_equal(shown(content.getvalue()), RGB)


def test_an_animation_is_still_one() -> None:
    content = io.BytesIO()
    frames = [Image.fromarray(RGB), Image.fromarray(255 - RGB)]
    frames[0].save(content, "PNG", save_all=True, append_images=frames[1:])
    text = content.getvalue()[:33] + ASIDE["packed text above 1 MB"] + content.getvalue()[33:]
    with pytest.raises(UnreadableImageError, match="animated"):
        shown(text)
    second = decode_image(text, Path("film.png"), ReaderSettings("all"), 2)
    np.testing.assert_array_equal(np.asarray(second), 255 - RGB)
