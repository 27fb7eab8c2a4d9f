"""Windows, rescales and tables of DICOM files as they are met: in any VR, half there, or not usable."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmedclip.edge_client.images.opening import UnreadableImageError, decode_image
from fedmedclip.edge_client.images.readers.settings import ReaderSettings
from tests.edge_client.images.dicom_files import (
    BIG_ENDIAN,
    EXPLICIT,
    IMPLICIT,
    dicom_file,
    image_elements,
    native_bytes,
)

Pixels = npt.NDArray[Any]
RAMP = np.arange(0, 4096, 64, dtype=np.uint16).reshape(8, 8)
TWELVE_BITS = {"BitsStored": 12, "HighBit": 11}


def shown(
    elements: dict[str, Any],
    pixels: Pixels = RAMP,
    syntax: str = EXPLICIT,
    settings: ReaderSettings | None = None,
) -> Pixels:
    content = dicom_file(image_elements(pixels, **elements), native_bytes(pixels, syntax), syntax)
    return np.asarray(decode_image(content, Path("scan"), settings or ReaderSettings()), dtype=int)[..., 0]


def windowed(values: Pixels, centre: float, width: float) -> Pixels:
    return np.floor(np.clip((values - (centre - 0.5)) / (width - 1) + 0.5, 0, 1) * 255 + 0.5)


def by_range(values: Pixels) -> Pixels:
    values = values.astype(float)
    return np.floor((values - values.min()) / (values.max() - values.min()) * 255 + 0.5)


def window(centre: Any, width: Any) -> dict[str, Any]:
    return TWELVE_BITS | {"WindowCenter": centre, "WindowWidth": width}


@pytest.mark.parametrize("vr", ["DS", "IS", "LO", "SH", "CS", "LT", "ST", "UT", "UC", "PN", "UN"])
def test_a_window_may_be_any_kind_of_text(vr: str) -> None:
    expected = windowed(RAMP, 1040, 400)
    np.testing.assert_allclose(shown(window((vr, "1040"), (vr, "400"))), expected, atol=1)
    several = window((vr, "1040\\60"), (vr, "400\\8"))
    np.testing.assert_allclose(shown(several), expected, atol=1)
    second = shown(several, settings=ReaderSettings(window=2))
    np.testing.assert_allclose(second, windowed(RAMP, 60, 8), atol=1)


@pytest.mark.parametrize("syntax", [EXPLICIT, BIG_ENDIAN])
@pytest.mark.parametrize("vr", ["US", "SS", "UL", "FL", "FD"])
def test_a_window_may_be_binary_numbers(vr: str, syntax: str) -> None:
    elements = window((vr, [1040]), (vr, [400])) | {"RescaleSlope": (vr, [2]), "RescaleIntercept": (vr, [1])}
    np.testing.assert_allclose(shown(elements, syntax=syntax), windowed(RAMP * 2 + 1, 1040, 400), atol=1)


@pytest.mark.parametrize(
    ("centre", "width", "expected"),
    [
        ("1000,5", "800,0", (1000.5, 800)),
        (" 1000.5 ", "+8.0E2", (1000.5, 800)),
        (".5", "80.", (0.5, 80)),
        # The first that can be used.
        ("\\400", "\\300", (400, 300)),
        ("abc\\400", "300\\200", (400, 200)),
        ("100\\400", "0\\200", (400, 200)),
        ("nan\\400", "10\\200", (400, 200)),
        # None that can be used, or not even a pair.
        ("", "", None),
        (" ", "400", None),
        ("40", "0", None),
        ("40", "-5", None),
        ("40 HU", "400", None),
        ("1.000,5", "400", None),
        ("1,000,5", "400", None),
        ("inf", "400", None),
        ("1e400", "400", None),
        ("0x10", "400", None),
        ("1_0", "400", None),
        (b"\xff\xfe", b"\x00\x01", None),
    ],
)
def test_an_unusable_window_is_passed_over(
    centre: Any, width: Any, expected: tuple[float, float] | None
) -> None:
    levels = by_range(RAMP) if expected is None else windowed(RAMP, *expected)
    np.testing.assert_allclose(shown(window(centre, width)), levels, atol=1)


def test_a_second_window_that_is_asked_for_is_no_other() -> None:
    settings = ReaderSettings(window=2)
    np.testing.assert_array_equal(shown(window("40\\\\9", "400\\\\9"), settings=settings), by_range(RAMP))


@given(st.text(max_size=20), st.text(max_size=20), st.text(max_size=20))
def test_whatever_is_written_gives_a_picture(centre: str, width: str, slope: str) -> None:
    keywords = ("WindowCenter", "WindowWidth", "RescaleSlope")
    elements = {
        keyword: ("LT", written.encode())
        for keyword, written in zip(keywords, (centre, width, slope), strict=True)
    }
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8)
    assert shown(elements, pixels).shape == pixels.shape


@pytest.mark.parametrize(
    ("rescale", "slope", "intercept"),
    [
        ({"RescaleSlope": "2"}, 2, 0),
        ({"RescaleIntercept": "-1024"}, 1, -1024),
        ({"RescaleSlope": "", "RescaleIntercept": "-1024"}, 1, -1024),
        ({"RescaleSlope": "2", "RescaleIntercept": ""}, 2, 0),
        ({"RescaleSlope": "1,5", "RescaleIntercept": "-1024,0"}, 1.5, -1024),
        ({"RescaleSlope": ("LO", "1.5"), "RescaleIntercept": ("LO", "-24")}, 1.5, -24),
    ],
)
def test_half_a_rescale_counts(rescale: dict[str, Any], slope: float, intercept: float) -> None:
    expected = windowed(RAMP * float(slope) + intercept, 40, 400)
    np.testing.assert_allclose(shown(window("40", "400") | rescale), expected, atol=1)


@pytest.mark.parametrize(
    "rescale",
    [{"RescaleSlope": "0"}, {"RescaleSlope": "abc"}, {"RescaleSlope": "1e306"}, {"RescaleIntercept": "nan"}],
)
def test_without_a_usable_rescale_no_window_means_anything(rescale: dict[str, str]) -> None:
    np.testing.assert_array_equal(shown(window("40", "400") | rescale), by_range(RAMP))
    with pytest.raises(UnreadableImageError, match="no usable rescale"):
        shown(window("40", "400") | rescale, settings=ReaderSettings(window=(40.0, 400.0)))


def table(first: int, entries: list[int], bits: int, vr: str = "US", data_vr: str = "OW") -> dict[str, Any]:
    """A LUT of these entries, whose descriptor has the VR that is wanted: the same bits under any."""
    descriptor = [len(entries) & 0xFFFF, first & 0xFFFF, bits]
    if vr == "SS":
        descriptor = [value - (1 << 16) if value >= 1 << 15 else value for value in descriptor]
    return {"LUTDescriptor": (vr, descriptor), "LUTData": (data_vr, entries)}


def looked_up(values: Pixels, first: int, entries: list[int]) -> Pixels:
    places = np.floor(values).astype(int) - first
    return np.array(entries)[places.clip(0, len(entries) - 1)]


def levels(entries: Pixels, largest: int) -> Pixels:
    return np.floor(entries / largest * 255 + 0.5)


ENTRIES = [int(value) for value in np.linspace(0, 65535, 2048)]


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, BIG_ENDIAN])
@pytest.mark.parametrize("vr", ["US", "SS", "OW"])
def test_the_first_value_of_a_voi_table_has_the_sign_of_what_is_looked_up(syntax: str, vr: str) -> None:
    """PS3.3 C.11.2.1.1: signed where the rescaled values may be negative, though the pixels are not."""
    elements = TWELVE_BITS | {"RescaleIntercept": "-1024", "VOILUTSequence": [table(-1024, ENTRIES, 16, vr)]}
    expected = levels(looked_up(RAMP - 1024.0, -1024, ENTRIES), 65535)
    np.testing.assert_allclose(shown(elements, syntax=syntax), expected, atol=1)


@pytest.mark.parametrize("vr", ["US", "SS", "OW"])
@pytest.mark.parametrize("signed", [False, True])
def test_the_first_value_of_a_modality_table_has_the_sign_of_the_pixels(vr: str, signed: bool) -> None:
    pixels = np.linspace(32768, 65535, 64).astype(np.uint16).reshape(8, 8)
    first = int(pixels.min())
    if signed:
        pixels, first = pixels.view(np.int16), first - (1 << 16)
    entries = [value // 16 for value in range(32768)]
    elements = {
        "ModalityLUTSequence": [table(first, entries, 16, vr)],
        "WindowCenter": "1000",
        "WindowWidth": "900",
    }
    expected = windowed(looked_up(pixels.astype(float), first, entries), 1000, 900)
    np.testing.assert_allclose(shown(elements, pixels), expected, atol=1)


def test_a_first_value_that_can_only_be_large_is_large() -> None:
    """16-bit pixels with an intercept of -24 go from -24 to 65,511: a table may begin in the upper half."""
    pixels = np.linspace(40_000, 65_535, 64).astype(np.uint16).reshape(8, 8)
    elements = {"RescaleIntercept": "-24", "VOILUTSequence": [table(41_000, ENTRIES, 16)]}
    expected = levels(looked_up(pixels - 24.0, 41_000, ENTRIES), 65535)
    np.testing.assert_allclose(shown(elements, pixels), expected, atol=1)


def test_entries_are_unsigned_whatever_their_vr() -> None:
    """PS3.3 C.11.1.1.1: the range of entries is always unsigned."""
    as_signed = [value - (1 << 16) if value >= 1 << 15 else value for value in ENTRIES]
    elements = TWELVE_BITS | {"VOILUTSequence": [table(0, ENTRIES, 16) | {"LUTData": ("SS", as_signed)}]}
    np.testing.assert_allclose(shown(elements), levels(looked_up(RAMP, 0, ENTRIES), 65535), atol=1)


@pytest.mark.parametrize("count", [256, 255])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize(
    ("vr", "syntax"), [("OB", EXPLICIT), ("OW", EXPLICIT), ("OW", BIG_ENDIAN), ("US", EXPLICIT)]
)
def test_entries_of_one_byte(vr: str, syntax: str, bits: int, count: int) -> None:
    """Two in each word, the first in the lower half, whatever width the descriptor names."""
    entries = [int(value) for value in np.linspace(0, 255, count)]
    packed = np.array([*entries, *[0] * (count % 2)], np.uint8)
    content = (
        packed.tobytes()
        if vr == "OB"
        else packed.view("<u2").astype(">u2" if syntax == BIG_ENDIAN else "<u2").tobytes()
    )
    item = table(0, entries, bits) | {"LUTData": (vr, content)}
    pixels = np.arange(0, 256, 4, dtype=np.uint16).reshape(8, 8)
    expected = levels(looked_up(pixels, 0, entries), 255)
    np.testing.assert_allclose(shown({"VOILUTSequence": [item]}, pixels, syntax), expected, atol=1)


@pytest.mark.parametrize(("declared", "used"), [(16, 8), (16, 12), (12, 8)])
def test_entries_far_narrower_than_declared_are_not_shown_black(declared: int, used: int) -> None:
    entries = [int(value) for value in np.linspace(0, (1 << used) - 1, 4096)]
    elements = TWELVE_BITS | {"VOILUTSequence": [table(0, entries, declared)]}
    np.testing.assert_allclose(shown(elements), levels(looked_up(RAMP, 0, entries), (1 << used) - 1), atol=1)


def test_entries_a_little_below_the_declared_range_are_as_dark_as_declared() -> None:
    entries = [int(value) for value in np.linspace(0, 1500, 4096)]
    elements = TWELVE_BITS | {"VOILUTSequence": [table(0, entries, 12)]}
    np.testing.assert_allclose(shown(elements), levels(looked_up(RAMP, 0, entries), 4095), atol=1)


UNUSABLE_ITEMS: dict[str, dict[str, Any]] = {
    "empty": {},
    "no data": {"LUTDescriptor": ("US", [4, 0, 16])},
    "no descriptor": {"LUTData": ("OW", [1, 2, 3, 4])},
    "short": table(0, ENTRIES, 16) | {"LUTData": ("OW", ENTRIES[:1500])},
    "descriptor of two": table(0, ENTRIES, 16) | {"LUTDescriptor": ("US", [2048, 0])},
    "no bits": table(0, ENTRIES, 0),
    "text": {"LUTDescriptor": ("LO", "a"), "LUTData": ("LO", "b")},
}


@pytest.mark.parametrize("name", UNUSABLE_ITEMS)
def test_an_unusable_voi_table_is_passed_over(name: str) -> None:
    item = UNUSABLE_ITEMS[name]
    np.testing.assert_array_equal(shown(TWELVE_BITS | {"VOILUTSequence": [item]}), by_range(RAMP))
    with_window = window("1000", "800") | {"VOILUTSequence": [item]}
    np.testing.assert_allclose(shown(with_window), windowed(RAMP, 1000, 800), atol=1)
    with_another = TWELVE_BITS | {"VOILUTSequence": [item, table(0, ENTRIES, 16)]}
    expected = levels(looked_up(RAMP, 0, ENTRIES), 65535)
    np.testing.assert_allclose(shown(with_another), expected, atol=1)


@pytest.mark.parametrize("name", UNUSABLE_ITEMS)
def test_an_unusable_modality_table_is_named(name: str) -> None:
    elements = TWELVE_BITS | {"ModalityLUTSequence": [UNUSABLE_ITEMS[name]]}
    if name == "empty":
        np.testing.assert_array_equal(shown(elements), by_range(RAMP))
        return
    with pytest.raises(UnreadableImageError, match="no usable modality LUT"):
        shown(elements)


@pytest.mark.parametrize(
    ("keyword", "dtype", "vr", "padding"),
    [
        ("FloatPixelData", np.float32, "FL", -1e30),
        ("FloatPixelData", np.float32, "FD", -1e30),
        ("DoubleFloatPixelData", np.float64, "FD", -1e300),
    ],
)
def test_float_padding_is_background(keyword: str, dtype: type, vr: str, padding: float) -> None:
    values = np.linspace(-100, 100, 64).reshape(8, 8)
    expected = by_range(values[2:])
    values[:2] = padding
    prefix = keyword.removesuffix("Data")
    pixels = values.astype(dtype)
    elements = image_elements(pixels, BitsStored=None, HighBit=None, PixelRepresentation=None)
    for ends in ({"PaddingValue": padding}, {"PaddingValue": padding, "PaddingRangeLimit": -1000.0}):
        said = {f"{prefix}{name}": (vr, [end]) for name, end in ends.items()}
        content = dicom_file(elements | said, pixels.tobytes(), pixel_keyword=keyword)
        levels_shown = np.asarray(decode_image(content, Path("scan")), dtype=int)[..., 0]
        np.testing.assert_allclose(levels_shown, np.vstack([np.zeros((2, 8)), expected]), atol=1)


@pytest.mark.parametrize("vr", ["US", "SS"])
@pytest.mark.parametrize("dtype", [np.uint16, np.int16])
def test_padding_has_the_sign_of_the_pixels(vr: str, dtype: type) -> None:
    pixels = np.array([[63536, 63536, 0], [500, 1000, 2000]], np.uint16).view(dtype)
    value = struct.pack("<H", 63536)
    np.testing.assert_array_equal(
        shown({"PixelPaddingValue": (vr, value)}, pixels), [[0, 0, 0], [64, 128, 255]]
    )


def palette(
    entries: list[int], bits: int, first: int = 0, vr: str = "US", data: bytes | None = None
) -> dict[str, Any]:
    """Palette elements; green and blue are darker than red."""
    elements: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for colour, part in (("Red", 1), ("Green", 2), ("Blue", 8)):
        scaled = [entry // part for entry in entries]
        content = np.array(scaled, "<u2" if data is None else "u1").tobytes()
        elements[f"{colour}PaletteColorLookupTableData"] = ("OW", content)
        descriptor = struct.pack("<3H", len(entries) & 0xFFFF, first & 0xFFFF, bits)
        elements[f"{colour}PaletteColorLookupTableDescriptor"] = (vr, descriptor)
    return elements


@pytest.mark.parametrize("declared", [8, 16])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_palettes_of_narrow_entries(declared: int, packed: bool, dtype: type) -> None:
    entries = list(range(0, 256, 4))
    pixels = np.arange(0, 72, dtype=dtype).reshape(8, 9)
    elements = image_elements(pixels) | palette(entries, declared, data=b"" if packed else None)
    content = dicom_file(elements, native_bytes(pixels))
    red = np.array(entries)[pixels.clip(0, len(entries) - 1)]
    expected = np.stack([red, red // 2, red // 8], axis=-1)
    np.testing.assert_array_equal(np.asarray(decode_image(content, Path("scan"))), expected)


@pytest.mark.parametrize("vr", ["US", "SS"])
def test_palettes_begin_at_a_value_with_the_sign_of_the_pixels(vr: str) -> None:
    entries = list(range(0, 65536, 1024))
    pixels = np.arange(-40, 32, dtype=np.int16).reshape(8, 9)
    content = dicom_file(
        image_elements(pixels) | palette(entries, 16, first=-32, vr=vr), native_bytes(pixels)
    )
    red = np.array(entries)[(pixels + 32).clip(0, len(entries) - 1)]
    expected = np.stack([red, red // 2, red // 8], axis=-1) >> 8
    np.testing.assert_array_equal(np.asarray(decode_image(content, Path("scan"))), expected)
