"""Each format of samples that plain files have, at the borders of its range, against its own formula."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from fedmedclip.edge_client.images.opening import UnreadableImageError, decode_image
from fedmedclip.edge_client.images.readers.settings import ReaderSettings

Values = npt.NDArray[Any]
RAW, DEFLATE = 1, 8
WHITE_IS_ZERO, BLACK_IS_ZERO, COLOURS, YCBCR = 0, 1, 2, 6
FORMATS = {"u": 1, "i": 2, "f": 3}
# What no version of Pillow that is allowed has a mode for: photometric interpretation, type, order of bytes.
NOT_READ = {
    *((WHITE_IS_ZERO, dtype, order) for dtype in ("i1", "i2", "u4", "i4") for order in "<>"),
    (WHITE_IS_ZERO, "u2", ">"),
    (BLACK_IS_ZERO, "u4", ">"),
}


def tiff(
    values: Values,
    order: str = "<",
    compression: int = RAW,
    photometric: int | None = BLACK_IS_ZERO,
    **more: Any,
) -> bytes:
    """A TIFF of values (height, width[, 3]) in one strip, or with `planar` in one for each colour."""
    height, width = values.shape[:2]
    count = 1 if values.ndim == 2 else values.shape[2]
    planes = np.moveaxis(values, -1, 0) if more.get("planar") else [values]
    strips = [
        np.ascontiguousarray(plane.astype(values.dtype.newbyteorder(order))).tobytes() for plane in planes
    ]
    if compression == DEFLATE:
        strips = [zlib.compress(strip) for strip in strips]
    short, long = 3, 4
    fields: dict[int, tuple[int, list[int]]] = {
        256: (short, [more.get("width", width)]),
        257: (short, [height]),
        258: (short, [more.get("bits", 8 * values.dtype.itemsize)] * count),
        259: (short, [compression]),
        273: (long, [8 + sum(map(len, strips[:number])) for number in range(len(strips))]),
        277: (short, [count]),
        278: (short, [height]),
        279: (long, [len(strip) for strip in strips]),
        284: (short, [2 if more.get("planar") else 1]),
        339: (short, [more.get("form", FORMATS[values.dtype.kind])] * count),
    }
    if photometric is not None:
        fields[262] = (short, [photometric])
    body = b"".join(strips) + b"\0" * (sum(map(len, strips)) % 2)
    at = 8 + len(body)
    behind = at + 2 + 12 * len(fields) + 4
    entries, outside = b"", b""
    for tag, (kind, numbers) in sorted(fields.items()):
        content = struct.pack(f"{order}{len(numbers)}{'H' if kind == short else 'L'}", *numbers)
        if len(content) > 4:
            place = struct.pack(f"{order}L", behind + len(outside))
            outside += content + b"\0" * (len(content) % 2)
        else:
            place = content.ljust(4, b"\0")
        entries += struct.pack(f"{order}HHL", tag, kind, len(numbers)) + place
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}L", at)
    return head + body + struct.pack(f"{order}H", len(fields)) + entries + b"\0\0\0\0" + outside


def borders(dtype: str) -> Values:
    """The smallest and largest values of a type, those beside them, and what is around 0 and around half."""
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return np.array([[-2.5, -1, 0, 0.25], [1, 2, 3, 6e4]], kind)
    information = np.iinfo(kind)
    lowest, highest = int(information.min), int(information.max)
    half = (lowest + highest) // 2
    return np.array([[lowest, lowest + 1, 0, 1], [half, half + 1, highest - 1, highest]], kind)


def by_range(values: Values) -> Values:
    values = values.astype(np.longdouble)
    return np.floor((values - values.min()) / (values.max() - values.min()) * 255 + 0.5).astype(int)


def shown(content: bytes, settings: ReaderSettings | None = None) -> Values:
    return np.asarray(decode_image(content, Path("scan"), settings or ReaderSettings()), dtype=int)


@pytest.mark.parametrize("compression", [RAW, DEFLATE])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("photometric", [BLACK_IS_ZERO, WHITE_IS_ZERO])
@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "f4"])
def test_grey_tiffs(dtype: str, photometric: int, order: str, compression: int) -> None:
    values = borders(dtype)
    content = tiff(values, order, compression, photometric)
    if (photometric, dtype, order) in NOT_READ:
        with pytest.raises(UnreadableImageError, match="a TIFF of samples that are not read"):
            shown(content)
        return
    levels = shown(content)[..., 0]
    # Plain 8-bit grey is shown as it is, all else by its range.
    expected = values.astype(int) if dtype == "u1" else by_range(values)
    expected = 255 - expected if photometric == WHITE_IS_ZERO else expected
    np.testing.assert_allclose(levels, expected, atol=1 if photometric == WHITE_IS_ZERO else 0)


@pytest.mark.parametrize("photometric", [BLACK_IS_ZERO, WHITE_IS_ZERO])
@pytest.mark.parametrize("bits", [1, 2, 4, 12])
def test_grey_tiffs_of_packed_bits(bits: int, photometric: int) -> None:
    largest = (1 << bits) - 1
    values = np.array([[0, 1, largest // 2, largest], [largest, 0, largest // 3, 1]])
    rows = ["".join(f"{value:0{bits}b}" for value in row) for row in values.tolist()]
    packed = b"".join(
        int(row.ljust(-(-len(row) // 8) * 8, "0"), 2).to_bytes(-(-len(row) // 8), "big") for row in rows
    )
    stored = np.frombuffer(packed, np.uint8).reshape(2, -1)
    content = tiff(stored, photometric=photometric, bits=bits, width=4)
    expected = np.floor(values / largest * 255 + 0.5)
    if (bits, photometric) == (12, WHITE_IS_ZERO):
        with pytest.raises(UnreadableImageError, match="a TIFF of samples that are not read"):
            shown(content)
        return
    expected = 255 - expected if photometric == WHITE_IS_ZERO else expected
    np.testing.assert_array_equal(shown(content)[..., 0], expected)


@pytest.mark.parametrize("dtype", ["i1", "u4"])
def test_a_window_is_in_the_units_of_the_values(dtype: str) -> None:
    values = borders(dtype)
    span = float(values.max()) - float(values.min())
    settings = ReaderSettings(window=(float(values.min()) + span / 2, span / 2))
    shares = (values.astype(float) - values.min() - span / 4) / (span / 2)
    np.testing.assert_allclose(
        shown(tiff(values), settings=settings)[..., 0], np.clip(shares, 0, 1) * 255, atol=1
    )


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compression", [RAW, DEFLATE])
@pytest.mark.parametrize("dtype", ["u1", "u2"])
def test_colour_tiffs(dtype: str, compression: int, order: str, planar: bool) -> None:
    largest = np.iinfo(dtype).max
    values = np.linspace(0, largest, 60).reshape(4, 5, 3).astype(dtype)
    content = tiff(values, order, compression, COLOURS, planar=planar)
    if planar and dtype == "u2":
        with pytest.raises(UnreadableImageError, match="16-bit colours"):
            shown(content)
        return
    np.testing.assert_array_equal(shown(content), values if dtype == "u1" else values >> 8)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (tiff(borders("f8")), "a TIFF of samples that are not read"),
        (tiff(borders("f2")), "a TIFF of samples that are not read"),
        (tiff(borders("u8")), "a TIFF of samples that are not read"),
        (tiff(np.zeros((4, 5, 3), np.int8), photometric=COLOURS), "a TIFF of samples that are not read"),
        (tiff(np.zeros((4, 5, 3), np.float32), photometric=COLOURS), "a TIFF of samples that are not read"),
        (tiff(borders("u1"), photometric=None), "no photometric interpretation"),
        (tiff(borders("u2"), photometric=None), "no photometric interpretation"),
        (tiff(np.zeros((4, 4, 3), np.uint8), photometric=YCBCR), "YCbCr colours"),
    ],
)
def test_other_tiffs_say_what_they_are(content: bytes, reason: str) -> None:
    with pytest.raises(UnreadableImageError) as caught:
        shown(content)
    assert caught.value.reason == reason


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("largest", [1, 3, 100, 255, 256, 1000, 4095, 32767, 65534, 65535])
def test_portable_grey_maps(largest: int, plain: bool) -> None:
    """Of at most 256 levels all are spread over 0 to 255; deeper ones are shown by their range."""
    values = np.array([[0, 1, largest // 3], [largest // 2, largest - 1, largest]])
    if plain:
        content = f"P2 3 2 {largest} ".encode() + " ".join(map(str, values.reshape(-1).tolist())).encode()
    else:
        content = f"P5 3 2 {largest}\n".encode() + values.astype("u1" if largest < 256 else ">u2").tobytes()
    np.testing.assert_allclose(shown(content)[..., 0], np.floor(values / largest * 255 + 0.5), atol=1)
    if largest < 256:
        return
    settings = ReaderSettings(window=(largest / 2, largest / 4))
    expected = np.clip((values - largest / 2) / (largest / 4) + 0.5, 0, 1) * 255
    np.testing.assert_allclose(shown(content, settings)[..., 0], expected, atol=1)


@pytest.mark.parametrize("largest", [1, 100, 255, 1000, 65535])
def test_portable_pixel_maps(largest: int) -> None:
    values = np.linspace(0, largest, 18).astype(int).reshape(2, 3, 3)
    content = f"P6 3 2 {largest}\n".encode() + values.astype("u1" if largest < 256 else ">u2").tobytes()
    np.testing.assert_allclose(shown(content), values / largest * 255, atol=0.51)


def test_portable_float_maps() -> None:
    values = np.array([[-1, 0, 0.5], [1, 2, 3]], "<f4")
    content = b"Pf\n3 2\n-1.0\n" + values[::-1].tobytes()
    np.testing.assert_array_equal(shown(content)[..., 0], by_range(values))


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_grey_pngs(bits: int) -> None:
    largest = (1 << bits) - 1
    values = np.array([[0, 1, largest // 2, largest], [largest, 0, largest // 3, 1]])
    if bits == 16:
        packed = [row.astype(">u2").tobytes() for row in values]
    else:
        written = ["".join(f"{value:0{bits}b}" for value in row) for row in values.tolist()]
        packed = [
            int(row.ljust(-(-len(row) // 8) * 8, "0"), 2).to_bytes(-(-len(row) // 8), "big")
            for row in written
        ]
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", 4, 2, bits, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(b"".join(b"\0" + row for row in packed))),
        (b"IEND", b""),
    ]
    content = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(value)) + kind + value + struct.pack(">I", zlib.crc32(kind + value))
        for kind, value in chunks
    )
    np.testing.assert_array_equal(shown(content)[..., 0], np.floor(values / largest * 255 + 0.5))


def bmp(bits: int, pixels: Values, *masks: int) -> bytes:
    """A BMP of rows from below, with colour masks where there are some."""
    rows = pixels[::-1].tobytes()
    header = struct.pack(
        "<IiiHHIIiiII", 40, *pixels.shape[1::-1], 1, bits, 3 if masks else 0, len(rows), 0, 0, 0, 0
    )
    header += struct.pack(f"<{len(masks)}I", *masks)
    start = 14 + len(header)
    return b"BM" + struct.pack("<IHHI", start + len(rows), 0, 0, start) + header + rows


def test_bmps_of_few_bits() -> None:
    values = np.array([[0, 0xFFFF, 0xF800, 0x07E0], [0x001F, 0x8410, 0x7FFF, 0x1234]], "<u2")
    layouts = [((), (10, 5, 0), (31, 31, 31)), ((0xF800, 0x07E0, 0x001F), (11, 5, 0), (31, 63, 31))]
    for masks, shifts, largest in layouts:
        expected = [(values >> shift & top) / top * 255 for shift, top in zip(shifts, largest, strict=True)]
        np.testing.assert_allclose(shown(bmp(16, values, *masks)), np.stack(expected, axis=-1), atol=1)
    with pytest.raises(UnreadableImageError, match="of a kind that is not read"):
        shown(bmp(16, values, 0x00F0, 0x0F00, 0xF000))


@pytest.mark.parametrize("jp2", [False, True])
def test_jpeg_2000(jp2: bool) -> None:
    def saved(image: Image.Image) -> bytes:
        content = io.BytesIO()
        image.save(content, "JPEG2000", no_jp2=not jp2, irreversible=False)
        return content.getvalue()

    colours = np.linspace(0, 255, 40 * 36 * 3).reshape(40, 36, 3).astype(np.uint8)
    np.testing.assert_array_equal(shown(saved(Image.fromarray(colours))), colours)
    np.testing.assert_array_equal(shown(saved(Image.fromarray(colours[..., 0])))[..., 1], colours[..., 0])
    deep = np.linspace(100, 60000, 40 * 36).reshape(40, 36).astype(np.uint16)
    np.testing.assert_array_equal(shown(saved(Image.fromarray(deep)))[..., 0], by_range(deep))
