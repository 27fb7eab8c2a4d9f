"""Each kind of image file is read as upright RGB, or refused with its reason."""

import io
import os
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from fedmedclip.edge_client.images.opening import (
    IMAGE_SUFFIXES,
    UnreadableImageError,
    decode_image,
    frames_of,
    identify_image,
    is_image_name,
    quiet_decoders,
    read_identified,
    read_image,
)
from fedmedclip.edge_client.images.readers.settings import ReaderSettings
from fedmedclip.protocol.errors import FedMedClipError
from tests.edge_client.conftest import random_pixels

RGB = Image.fromarray(random_pixels(1))
Content = bytes | Callable[[], bytes]


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def png(width: int, height: int, bits: int, color_type: int, pixels: bytes) -> bytes:
    """A PNG written by hand, for kinds that Pillow reads and does not write."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    header = struct.pack(">IIBBBBB", width, height, bits, color_type, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def png_16(color_type: int) -> bytes:
    channels = {0: 1, 2: 3, 4: 2, 6: 4}[color_type]
    return png(4, 3, 16, color_type, (b"\0" + b"\x12\x34" * 4 * channels) * 3)


def tiff_16_rgb() -> bytes:
    pixels = b"\x34\x12" * 3 * 4 * 3
    tags = [(256, 3, 1, 4), (257, 3, 1, 3), (258, 3, 3, 0), (259, 3, 1, 1), (262, 3, 1, 2), (273, 4, 1, 8)]
    tags += [(277, 3, 1, 3), (278, 3, 1, 3), (279, 4, 1, len(pixels))]
    directory_at = 8 + len(pixels)
    bits_at = directory_at + 2 + 12 * len(tags) + 4
    entries = b"".join(
        struct.pack("<HHII", tag, kind, count, bits_at if tag == 258 else value)
        for tag, kind, count, value in tags
    )
    directory = (
        struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0) + struct.pack("<HHH", 16, 16, 16)
    )
    return b"II*\0" + struct.pack("<I", directory_at) + pixels + directory


def frames(kind: str) -> bytes:
    return saved(RGB, kind, save_all=True, append_images=[RGB.rotate(180)])


def pages() -> bytes:
    return saved(RGB, "TIFF", save_all=True, append_images=[RGB.rotate(180), RGB.rotate(180)])


def grey_16() -> Image.Image:
    return Image.fromarray(np.arange(12, dtype=np.uint16).reshape(3, 4) * 5000)


READABLE = {
    "rgb.png": saved(RGB, "PNG"),
    "rgb.bmp": saved(RGB, "BMP"),
    "rgb.tif": saved(RGB, "TIFF"),
    "lzw.tiff": saved(RGB, "TIFF", compression="tiff_lzw"),
    "rgb.webp": saved(RGB, "WEBP", lossless=True),
    "rgb.ppm": saved(RGB, "PPM"),
    "rgba.png": saved(RGB.convert("RGBA"), "PNG"),
    "rgba.webp": saved(RGB.convert("RGBA"), "WEBP", lossless=True),
}
REFUSED: dict[str, tuple[bytes, str]] = {
    "empty.jpg": (b"", "empty file"),
    "text.jpg": (b"patient was moved to another folder\n", "not an image"),
    "grey_alpha16.png": (png_16(4), "16-bit with alpha"),
    "lab.tif": (saved(RGB.convert("LAB"), "TIFF"), "LAB colours"),
    "film.gif": (frames("GIF"), "animated"),
    "film.png": (frames("PNG"), "animated"),
    "film.webp": (frames("WEBP"), "animated"),
    "narrow.png": (saved(Image.new("L", (5000, 2)), "PNG"), "too narrow"),
    # Over this project's limit, and over the one from which Pillow itself refuses.
    "large.png": (saved(Image.new("1", (9000, 8000)), "PNG"), "too many pixels"),
    "bomb.png": (png(60000, 60000, 8, 2, b""), "too many pixels"),
    "damaged.png": (saved(RGB, "PNG").replace(b"IDAT", b"IDAT\xff\xff", 1), "corrupt"),
}
TRUNCATED = {
    "JPEG": saved(RGB, "JPEG", quality=95),
    "PNG": saved(RGB, "PNG"),
    "BMP": saved(RGB, "BMP"),
    "PPM": saved(RGB, "PPM"),
    "TIFF": saved(RGB, "TIFF"),
}


@pytest.mark.parametrize("name", READABLE)
def test_reads_lossless_kinds_exactly(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(READABLE[name])
    image = read_image(tmp_path / name)
    assert image.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(image), np.asarray(RGB))


def test_reads_jpeg(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(saved(RGB, "JPEG", quality=95))
    difference = np.asarray(read_image(tmp_path / "a.jpg"), dtype=int) - np.asarray(RGB, dtype=int)
    assert np.abs(difference).mean() < 4


@pytest.mark.parametrize(
    ("mode", "kind"), [("L", "PNG"), ("L", "BMP"), ("1", "PNG"), ("1", "TIFF"), ("LA", "PNG")]
)
def test_grey_gets_three_equal_channels(mode: str, kind: str) -> None:
    grey = RGB.convert(mode)
    image = decode_image(saved(grey, kind), Path("grey"))
    assert image.mode == "RGB"
    for channel in image.split():
        np.testing.assert_array_equal(np.asarray(channel), np.asarray(grey.convert("L")))


def test_keeps_the_colours_under_alpha() -> None:
    transparent = RGB.copy()
    transparent.putalpha(0)
    np.testing.assert_array_equal(
        np.asarray(decode_image(saved(transparent, "PNG"), Path("a.png"))), np.asarray(RGB)
    )


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_deep_grey_goes_from_its_smallest_to_its_largest_value(kind: str) -> None:
    written = grey_16().convert("I") if kind == "PPM" else grey_16()
    image = np.asarray(decode_image(saved(written, kind), Path("deep")))
    expected = np.round(np.arange(12).reshape(3, 4) / 11 * 255)
    for channel in range(3):
        np.testing.assert_array_equal(image[..., channel], expected)


def test_a_window_is_for_deep_grey_only() -> None:
    window = ReaderSettings(window=(20_000, 20_000))
    image = np.asarray(decode_image(saved(grey_16(), "PNG"), Path("deep"), window))
    np.testing.assert_array_equal(image[0, :, 0], [0, 0, 0, 64])
    shallow = decode_image(saved(RGB, "PNG"), Path("shallow"), window)
    np.testing.assert_array_equal(np.asarray(shallow), np.asarray(RGB))


def test_float_values_that_are_not_finite_are_black() -> None:
    values = np.array([[np.nan, -np.inf, 1.0], [2.0, 3.0, np.inf]], np.float32)
    image = decode_image(saved(Image.fromarray(values), "TIFF"), Path("float.tif"))
    np.testing.assert_array_equal(np.asarray(image)[..., 0], [[0, 0, 0], [128, 255, 0]])
    with pytest.raises(UnreadableImageError, match="no usable value"):
        decode_image(saved(Image.fromarray(values * np.nan), "TIFF"), Path("float.tif"))


def test_deep_grey_where_zero_is_white() -> None:
    content = saved(grey_16(), "TIFF", tiffinfo={262: 0})
    image = np.asarray(decode_image(content, Path("a.tif")))[..., 0]
    np.testing.assert_array_equal(image, 255 - np.round(np.arange(12).reshape(3, 4) / 11 * 255))


@pytest.mark.parametrize(
    "content", [png_16(2), png_16(6), tiff_16_rgb(), b"P6 4 3 65535\n" + b"\x12\x34" * 36]
)
def test_of_deep_colours_the_upper_half_is_read(content: bytes) -> None:
    assert decode_image(content, Path("deep")).getextrema() == ((0x12, 0x12),) * 3


@pytest.mark.parametrize("kind", ["PNG", "GIF", "BMP", "TIFF"])
def test_palettes_give_their_colours(kind: str) -> None:
    palette = RGB.convert("P")
    image = decode_image(saved(palette, kind), Path("palette"))
    np.testing.assert_array_equal(np.asarray(image), np.asarray(palette.convert("RGB")))


def test_a_transparent_palette_keeps_its_colours() -> None:
    palette = RGB.convert("P")
    content = saved(palette, "PNG", transparency=bytes(range(256)))
    np.testing.assert_array_equal(
        np.asarray(decode_image(content, Path("a.png"))), np.asarray(palette.convert("RGB"))
    )


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_becomes_rgb(kind: str) -> None:
    # Ink on white paper: Adobe's JPEGs store it inverted, which must not show.
    image = decode_image(saved(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), kind), Path("print"))
    np.testing.assert_allclose(np.asarray(image)[0, 0], [255, 0, 0], atol=3)


@pytest.mark.parametrize(("choice", "shown"), [("auto", 0), ("first", 0), ("middle", 1)])
def test_the_pages_of_a_tiff(choice: Any, shown: int) -> None:
    image = decode_image(pages(), Path("a.tif"), ReaderSettings(choice))
    np.testing.assert_array_equal(np.asarray(image), np.asarray(RGB.rotate(180) if shown else RGB))


def test_frames_have_addresses(tmp_path: Path) -> None:
    for name, content in (("a.tif", pages()), ("film.gif", frames("GIF")), ("one.png", saved(RGB, "PNG"))):
        (tmp_path / name).write_bytes(content)
    every = ReaderSettings("all")
    addresses = frames_of(tmp_path / "a.tif", every)
    assert [address.name for address in addresses] == ["a.tif#frame=1", "a.tif#frame=2", "a.tif#frame=3"]
    assert [address.name for address in frames_of(tmp_path / "film.gif", every)] == [
        "film.gif#frame=1", "film.gif#frame=2"
    ]  # fmt: skip
    assert frames_of(tmp_path / "one.png", every) == [tmp_path / "one.png"]
    np.testing.assert_array_equal(np.asarray(read_image(addresses[2])), np.asarray(RGB.rotate(180)))
    with pytest.raises(UnreadableImageError, match="no such frame"):
        read_image(tmp_path / "a.tif#frame=4")
    # A file of this very name goes before the address.
    (tmp_path / "a.tif#frame=1").write_bytes(saved(RGB.rotate(90, expand=True), "PNG"))
    assert read_image(addresses[0]).size == (30, 40)


def test_the_key_covers_how_an_image_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(pages())
    (tmp_path / "a.jpg").write_bytes(saved(RGB, "JPEG"))
    choices = [ReaderSettings(), ReaderSettings("middle"), ReaderSettings(window="range")]
    frame = identify_image(tmp_path / "a.tif#frame=2", choices[0])
    whole = [identify_image(tmp_path / "a.tif", settings) for settings in choices]
    assert len({frame.key, *(identity.key for identity in whole)}) == 4
    assert len({frame.content_hash, *(identity.content_hash for identity in whole)}) == 1
    assert len({identify_image(tmp_path / "a.jpg", settings).key for settings in choices}) == 1
    for settings, identity in zip(choices, whole, strict=True):
        assert read_identified(tmp_path / "a.tif", settings)[0] == identity


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turns_the_image_upright(orientation: int) -> None:
    turned_back = {
        1: [],
        2: [Image.Transpose.FLIP_LEFT_RIGHT],
        3: [Image.Transpose.ROTATE_180],
        4: [Image.Transpose.FLIP_TOP_BOTTOM],
        5: [Image.Transpose.TRANSPOSE],
        6: [Image.Transpose.ROTATE_90],
        7: [Image.Transpose.TRANSVERSE],
        8: [Image.Transpose.ROTATE_270],
    }
    stored = RGB
    for operation in turned_back[orientation]:
        stored = stored.transpose(operation)
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = decode_image(saved(stored, "PNG", exif=exif), Path("a.png"))
    np.testing.assert_array_equal(np.asarray(image), np.asarray(RGB))


def test_reads_the_main_picture_of_a_phone_photo() -> None:
    image = decode_image(frames("MPO"), Path("phone.jpg"))
    np.testing.assert_array_equal(np.asarray(image), np.asarray(Image.open(io.BytesIO(frames("MPO")))))


@pytest.mark.parametrize("name", REFUSED)
def test_refuses_with_the_reason(tmp_path: Path, name: str) -> None:
    content, reason = REFUSED[name]
    (tmp_path / name).write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UnreadableImageError) as caught, quiet_decoders():
            read_image(tmp_path / name)
    assert caught.value.reason == reason
    assert isinstance(caught.value, FedMedClipError)
    assert str(tmp_path / name) in str(caught.value)


@pytest.mark.parametrize("kept", [0.5, 0.8, 0.97])
@pytest.mark.parametrize("kind", TRUNCATED)
def test_refuses_truncated(tmp_path: Path, kind: str, kept: float) -> None:
    content = TRUNCATED[kind]
    (tmp_path / "cut").write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(UnreadableImageError) as caught:
        read_image(tmp_path / "cut")
    # Where a TIFF keeps its directory at the end, nothing of it is left to tell.
    expected = {"truncated", "not an image"} if kind == "TIFF" else {"truncated"}
    assert caught.value.reason in expected


def test_refuses_truncated_scans(shared: Path) -> None:
    scan = sorted((shared / "data" / "brain_tumor" / "hospital_0" / "no_tumor").glob("*.jpg"))[0]
    content = scan.read_bytes()
    assert decode_image(content, scan).mode == "RGB"
    for kept in (0.3, 0.6, 0.9):
        with pytest.raises(UnreadableImageError) as caught:
            decode_image(content[: int(len(content) * kept)], scan)
        assert caught.value.reason == "truncated"


def test_refuses_what_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "folder.jpg").mkdir()
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "dangling.jpg").symlink_to(tmp_path / "gone.jpg")
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    reasons = {}
    for name in ("folder.jpg", "pipe.jpg", "dangling.jpg", "loop.jpg", "missing.jpg"):
        with pytest.raises(UnreadableImageError) as caught:
            read_image(tmp_path / name)
        reasons[name] = caught.value.reason
    assert reasons == {
        "loop.jpg": "symbolic links in a circle",
        "folder.jpg": "not a file",
        "pipe.jpg": "not a file",
        "dangling.jpg": "missing",
        "missing.jpg": "missing",
    }


@given(
    st.binary(max_size=300)
    | st.builds(
        lambda content, at, patch: (
            content[: at % len(content)] + patch + content[at % len(content) + len(patch) :]
        ),
        st.sampled_from(
            [*TRUNCATED.values(), *READABLE.values(), tiff_16_rgb(), frames("GIF"), frames("MPO")]
        ),
        st.integers(0, 1 << 20),
        st.binary(max_size=8),
    )
)
@example(b"P6 0 0 255\n")
@example(b"GIF89a\x00\x00\x00\x00\x00\x00\x00")
def test_hostile_bytes_give_an_image_or_a_reason(content: bytes) -> None:
    with quiet_decoders():
        try:
            image = decode_image(content, Path("hostile"))
        except UnreadableImageError as error:
            reason = error.reason
        else:
            reason = f"none: {image.mode}"
            assert min(image.size) > 0
    assert reason == "none: RGB" or 0 < len(reason) < 40


@pytest.mark.parametrize("suffix", sorted(IMAGE_SUFFIXES))
@pytest.mark.parametrize("kind", ["JPEG", "JPEG2000", "PNG", "TIFF", "BMP", "GIF", "WEBP"])
def test_content_tells_the_kind_whatever_the_name(kind: str, suffix: str) -> None:
    content = saved(Image.new("L", (32, 32), 7), kind)
    np.testing.assert_allclose(np.asarray(decode_image(content, Path(f"a{suffix}"))), 7, atol=1)


@pytest.mark.parametrize("kind", ["TIFF", "PNG", "BMP"])
def test_the_shape_of_pixels_is_not_applied(kind: str) -> None:
    content = saved(RGB, kind, dpi=(100, 300))
    np.testing.assert_array_equal(np.asarray(decode_image(content, Path("a"))), np.asarray(RGB))


@pytest.mark.parametrize("name", [b"\xff\xfe.png", b"r\xf6ntgen.jpg", b"\xe9tude.nii", b"IM\xff"])
def test_names_that_are_not_utf_8(tmp_path: Path, name: bytes) -> None:
    path = tmp_path / os.fsdecode(name)
    path.write_bytes(saved(RGB, "PNG"))
    assert read_image(path).size == RGB.size
    assert frames_of(path, ReaderSettings("all")) == [path]
    path.write_bytes(b"no image")
    with pytest.raises(UnreadableImageError, match="not an image"):
        read_image(path)


def test_image_names() -> None:
    taken = [
        "a.jpg",
        "b.JPEG",
        "c.Png",
        "scan.dcm",
        "head.nii.gz",
        "d.jfif",
        "e.JPE",
        "f.jp2",
        "g.j2k",
        "h.pnm",
    ]
    names = [*taken, "Thumbs.db", ".DS_Store", "notes.txt", "._a.jpg", "jpg", "notes.gz", "scan.jp2.txt"]
    assert [name for name in names if is_image_name(Path(name))] == taken
