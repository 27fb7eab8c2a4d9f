"""The real DICOM files that pydicom carries become the pixels that its own functions give."""

import io
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pydicom
import pytest
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileDataset
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut, pixel_array
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from fedmedclip.edge_client.images.dataset import list_images
from fedmedclip.edge_client.images.opening import UnreadableImageError, decode_image, frames_of, read_image
from fedmedclip.edge_client.images.readers.settings import ReaderSettings
from tests.edge_client.images import dicom_files
from tests.edge_client.images.dicom_files import dicom_file, image_elements, native_bytes
from tests.edge_client.images.frame_encoders import jpeg_2000, jpeg_lossless, jpeg_ls_frame

FOLDER = Path(pydicom.__file__).parent / "data" / "test_files"
GREY = [
    "693_J2KI.dcm", "CT_small.dcm", "J2K_pixelrep_mismatch.dcm", "JPEG2000.dcm", "JPEGLSNearLossless_08.dcm",
    "JPEGLSNearLossless_16.dcm", "JPGExtended.dcm", "MR_small.dcm", "MR_small_RLE.dcm",
    "MR_small_bigendian.dcm", "MR_small_expb.dcm", "MR_small_implicit.dcm", "MR_small_jp2klossless.dcm",
    "MR_small_jpeg_ls_lossless.dcm", "MR_small_padded.dcm", "examples_overlay.dcm", "image_dfl.dcm",
    "liver_1frame.dcm", "liver_expb_1frame.dcm", "rtdose.dcm", "rtdose_expb.dcm", "rtdose_rle.dcm",
    "dicomdirtests/77654033/CR1/6154", "dicomdirtests/98892001/CT5N/2062", "dicomdirtests/98892003/MR1/15820",
]  # fmt: skip
COLOURS = [
    "SC_rgb_dcmtk_+eb+cr.dcm", "SC_rgb_dcmtk_+eb+cy+n1.dcm", "SC_rgb_dcmtk_+eb+cy+s4.dcm",
    "SC_rgb_gdcm_KY.dcm", "SC_rgb_jls_lossy_line.dcm", "SC_rgb_jls_lossy_sample.dcm", "SC_rgb_jpeg.dcm",
    "SC_rgb_jpeg_app14_dcmd.dcm", "SC_rgb_jpeg_dcmtk.dcm", "SC_rgb_jpeg_gdcm.dcm", "SC_rgb_rle.dcm",
    "SC_rgb_rle_16bit.dcm", "SC_rgb_rle_2frame.dcm", "SC_rgb_small_odd.dcm",
    "SC_rgb_small_odd_big_endian.dcm", "SC_rgb_small_odd_jpeg.dcm", "SC_ybr_full_422_uncompressed.dcm",
    "ExplVR_BigEnd.dcm", "GDCMJ2K_TextGBR.dcm", "examples_jpeg2k.dcm", "examples_palette.dcm",
    "examples_rgb_color.dcm", "examples_ybr_color.dcm",
]  # fmt: skip
REFUSED = {
    "rtplan.dcm": "no pixels",
    "test-SR.dcm": "no pixels",
    "waveform_ecg.dcm": "no pixels",
    "dicomdirtests/DICOMDIR": "no pixels",
    "no_meta_group_length.dcm": "no pixels",
    "MR_truncated.dcm": "truncated",
    "badVR.dcm": "corrupt",
    # pydicom's own decoders refuse them, too.
    "JPEG-lossy.dcm": "corrupt",
    "JPEG2000-embedded-sequence-delimiter.dcm": "corrupt",
}
# pydicom takes whichever decoder it finds first, and those of lossy colours differ by a step or two.
LOSSY = ("jpeg", "+cy", "+cr", "J2K", "ybr_color")


def stored_middle(name: str) -> tuple[FileDataset, npt.NDArray[Any]]:
    dataset = pydicom.dcmread(FOLDER / name)
    frames = int(dataset.get("NumberOfFrames") or 1)
    return dataset, pixel_array(dataset, index=(frames + 1) // 2 - 1)


def scaled(values: npt.NDArray[Any], lowest: float, highest: float) -> npt.NDArray[Any]:
    shares = (values.astype(np.float64) - lowest) / ((highest - lowest) or 1)
    return np.floor(np.clip(shares, 0, 1) * 255 + 0.5)


def expected_grey(dataset: Dataset, stored: npt.NDArray[Any], index: int = 0) -> npt.NDArray[Any]:
    """The 8-bit image by pydicom's modality and VOI functions, which give the range of the stored bits."""
    measured = apply_modality_lut(stored, dataset)
    windowed = apply_voi_lut(measured, dataset, index)
    if windowed is measured:
        return scaled(measured, measured.min(), measured.max())
    if dataset.get("VOILUTSequence"):
        return scaled(windowed, 0, 2 ** dataset.VOILUTSequence[index].LUTDescriptor[2] - 1)
    bits, signed = dataset.BitsStored, dataset.PixelRepresentation
    ends = np.array([-(2 ** (bits - 1)), 2 ** (bits - 1) - 1] if signed else [0, 2**bits - 1], np.float64)
    ends = ends * float(dataset.get("RescaleSlope") or 1) + float(dataset.get("RescaleIntercept") or 0)
    if dataset.get("ModalityLUTSequence"):
        ends = np.array([0, 2 ** dataset.ModalityLUTSequence[0].LUTDescriptor[2] - 1], np.float64)
    return scaled(windowed, *ends)


@pytest.mark.parametrize("name", GREY)
def test_grey_files_equal_pydicom(name: str) -> None:
    dataset, stored = stored_middle(name)
    expected = expected_grey(dataset, stored)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        expected = 255 - expected
    image = np.asarray(read_image(FOLDER / name), dtype=int)
    np.testing.assert_allclose(image[..., 0], expected, atol=1)
    assert (np.abs(image[..., 0] - expected) > 0).mean() < 0.01
    assert (image == image[..., :1]).all()


@pytest.mark.parametrize("name", COLOURS)
def test_colour_files_equal_pydicom(name: str) -> None:
    dataset, stored = stored_middle(name)
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        stored = apply_color_lut(stored, dataset)
    if stored.dtype.itemsize > 1:
        stored = stored >> 8
    image = np.asarray(read_image(FOLDER / name), dtype=int)
    np.testing.assert_allclose(image, stored[..., :3], atol=3 if any(part in name for part in LOSSY) else 0)


@pytest.mark.parametrize("name", REFUSED)
def test_files_that_cannot_be_used_say_why(name: str) -> None:
    with pytest.raises(UnreadableImageError) as caught:
        read_image(FOLDER / name)
    assert caught.value.reason == REFUSED[name]


def made(
    pixels: npt.NDArray[Any], syntax: str = ExplicitVRLittleEndian, *, bare: bool = False, **elements: Any
) -> bytes:
    """A DICOM file of these pixels, uint8 or 16 bit, (height, width) or (frames, height, width)."""
    dataset = Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.Rows, dataset.Columns = pixels.shape[-2:]
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 8 * pixels.dtype.itemsize
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    if pixels.ndim == 3:
        dataset.NumberOfFrames = len(pixels)
    big = syntax == ExplicitVRBigEndian
    dataset.PixelData = pixels.astype(pixels.dtype.newbyteorder(">" if big else "<")).tobytes()
    dataset["PixelData"].VR = "OW" if pixels.dtype.itemsize == 2 else "OB"
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.7", "1.2.3"
    content = io.BytesIO()
    if bare:
        del dataset.file_meta
        dataset.save_as(content, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=not big)
    else:
        dataset.save_as(content, enforce_file_format=True)
    return content.getvalue()


def grey(content: bytes, settings: ReaderSettings | None = None, name: str = "scan") -> npt.NDArray[Any]:
    return np.asarray(decode_image(content, Path(name), settings or ReaderSettings()))[..., 0]


RAMP = np.arange(-1000, 1000, 25, dtype=np.int16).reshape(8, 10)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_the_encoding_does_not_matter(syntax: str) -> None:
    expected = scaled(RAMP, -1000, 975)
    np.testing.assert_array_equal(grey(made(RAMP, syntax)), expected)
    # Without preamble and meta information, as old archives export.
    np.testing.assert_array_equal(grey(made(RAMP, syntax, bare=True)), expected)


WINDOWS: dict[str, dict[str, Any]] = {
    "linear": {"WindowCenter": 40, "WindowWidth": 400},
    "linear exact": {"WindowCenter": 40, "WindowWidth": 400, "VOILUTFunction": "LINEAR_EXACT"},
    "sigmoid": {"WindowCenter": 40, "WindowWidth": 400, "VOILUTFunction": "SIGMOID"},
    "narrow": {"WindowCenter": 40, "WindowWidth": 1},
    "rescaled": {"WindowCenter": 40, "WindowWidth": 400, "RescaleSlope": 2, "RescaleIntercept": -100},
    "none": {"RescaleSlope": 2, "RescaleIntercept": -100},
}


@pytest.mark.parametrize("name", WINDOWS)
def test_windows_equal_pydicom(name: str) -> None:
    content = made(RAMP, **WINDOWS[name])
    dataset = pydicom.dcmread(io.BytesIO(content))
    np.testing.assert_allclose(grey(content), expected_grey(dataset, dataset.pixel_array), atol=1)


def lookup_table(first: int, entries: list[int], bits: int) -> Dataset:
    item = Dataset()
    item.add_new("LUTDescriptor", "SS", [len(entries), first, bits])
    item.add_new("LUTData", "OW", np.array(entries, "<u2").tobytes())
    return item


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
def test_lookup_tables_equal_pydicom(syntax: str) -> None:
    modality = lookup_table(-500, list(range(0, 1000, 2)), 16)
    voi = [lookup_table(0, [0, 100, 900, 1023] * 100, 10), lookup_table(100, list(range(0, 4000, 10)), 12)]
    content = made(RAMP, ModalityLUTSequence=[modality], VOILUTSequence=voi, WindowCenter=1, WindowWidth=9)
    dataset = pydicom.dcmread(io.BytesIO(content))
    for index in range(2):
        expected = expected_grey(dataset, dataset.pixel_array, index)
        content = made(RAMP, syntax, ModalityLUTSequence=[modality], VOILUTSequence=voi, WindowCenter=1)
        np.testing.assert_allclose(grey(content, ReaderSettings(window=index + 1)), expected, atol=1)


def test_the_window_can_be_chosen() -> None:
    content = made(RAMP, WindowCenter=[40, 400], WindowWidth=[80, 1500], RescaleSlope=1, RescaleIntercept=0)
    np.testing.assert_array_equal(grey(content), grey(made(RAMP, WindowCenter=40, WindowWidth=80)))
    second = grey(content, ReaderSettings(window=2))
    np.testing.assert_array_equal(second, grey(made(RAMP, WindowCenter=400, WindowWidth=1500)))
    given = grey(content, ReaderSettings(window=(100.0, 200.0)))
    np.testing.assert_array_equal(given, scaled(RAMP, 0, 200))
    np.testing.assert_array_equal(grey(content, ReaderSettings(window="range")), scaled(RAMP, -1000, 975))
    with pytest.raises(UnreadableImageError, match="no such window"):
        grey(content, ReaderSettings(window=3))
    # A width of zero is no window.
    np.testing.assert_array_equal(grey(made(RAMP, WindowCenter=0, WindowWidth=0)), scaled(RAMP, -1000, 975))


def test_monochrome1_is_inverted_and_padding_black() -> None:
    pixels = np.array([[-2000, -1000, 0], [500, 1000, -2000]], np.int16)
    plain = grey(made(pixels, PixelPaddingValue=-2000))
    np.testing.assert_array_equal(plain, [[0, 0, 128], [191, 255, 0]])
    inverted = grey(made(pixels, PixelPaddingValue=-2000, PhotometricInterpretation="MONOCHROME1"))
    np.testing.assert_array_equal(inverted, [[0, 255, 128], [64, 0, 0]])
    ranged = grey(made(pixels, PixelPaddingValue=-2000, PixelPaddingRangeLimit=-1000))
    np.testing.assert_array_equal(ranged, [[0, 0, 0], [128, 255, 0]])


FRAMES = np.stack([np.full((4, 5), level, np.uint8) + np.eye(4, 5, dtype=np.uint8) for level in (0, 10, 20)])


@pytest.mark.parametrize(("choice", "level"), [("auto", 10), ("first", 0), ("middle", 10)])
@pytest.mark.parametrize("compressed", [False, True])
def test_one_frame_of_several(
    choice: Literal["auto", "first", "middle"], level: int, compressed: bool
) -> None:
    content = made(FRAMES, WindowCenter=32, WindowWidth=64, VOILUTFunction="LINEAR_EXACT")
    if compressed:
        dataset = pydicom.dcmread(io.BytesIO(content))
        dataset.compress(RLELossless)
        file = io.BytesIO()
        dataset.save_as(file)
        content = file.getvalue()
    shown = grey(content, ReaderSettings(choice))
    np.testing.assert_array_equal(shown, scaled(FRAMES[level // 10], 0, 64))


def test_every_frame_has_an_address(tmp_path: Path) -> None:
    file = tmp_path / "cine.dcm"
    file.write_bytes(made(FRAMES, WindowCenter=32, WindowWidth=64, VOILUTFunction="LINEAR_EXACT"))
    addresses = frames_of(file, ReaderSettings("all"))
    assert list_images([tmp_path], ReaderSettings("all")) == addresses
    assert [address.name for address in addresses] == [f"cine.dcm#frame={number}" for number in (1, 2, 3)]
    for address, frame in zip(addresses, FRAMES, strict=True):
        np.testing.assert_array_equal(np.asarray(read_image(address))[..., 0], scaled(frame, 0, 64))


def test_enhanced_files_have_windows_for_each_frame() -> None:
    def group(centre: float) -> Dataset:
        voi, own = Dataset(), Dataset()
        voi.WindowCenter, voi.WindowWidth, voi.VOILUTFunction = centre, 64, "LINEAR_EXACT"
        own.FrameVOILUTSequence = [voi]
        return own

    rescale, shared = Dataset(), Dataset()
    rescale.RescaleSlope, rescale.RescaleIntercept = 2, 0
    shared.PixelValueTransformationSequence = [rescale]
    content = made(
        FRAMES,
        PerFrameFunctionalGroupsSequence=[group(0), group(32), group(0)],
        SharedFunctionalGroupsSequence=[shared],
    )
    np.testing.assert_array_equal(grey(content), scaled(FRAMES[1] * 2, 0, 64))


def test_a_name_without_ending_is_found_by_content(tmp_path: Path) -> None:
    for name in ("IM000001", "1.2.840.113619.2.5", "DICOMDIR"):
        (tmp_path / name).write_bytes(made(RAMP))
    (tmp_path / "notes").write_text("no image")
    assert [path.name for path in list_images([tmp_path])] == ["1.2.840.113619.2.5", "IM000001"]
    assert read_image(tmp_path / "IM000001").size == (10, 8)


def test_a_wrong_ending_does_not_matter() -> None:
    content = io.BytesIO()
    Image.new("L", (5, 4), 7).save(content, "PNG")
    assert grey(content.getvalue(), name="export.dcm").tolist() == [[7] * 5] * 4
    np.testing.assert_array_equal(grey(made(RAMP), name="scan.jpg"), scaled(RAMP, -1000, 975))


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        ({"Rows": 60000, "Columns": 60000}, "too many pixels"),
        ({"Rows": 1, "Columns": 80}, "too narrow"),
        ({"Rows": 0}, "corrupt"),
        ({"NumberOfFrames": 100_000_000}, "truncated"),
        ({"BitsAllocated": 64, "Rows": 8000, "Columns": 8000}, "truncated"),
        ({"SamplesPerPixel": 7}, "unusual colours"),
        ({"PixelData": b""}, "no pixels"),
        ({"PixelData": b"\0" * 100}, "truncated"),
    ],
)
def test_hostile_headers_are_refused_before_anything_is_allocated(
    elements: dict[str, Any], reason: str
) -> None:
    with pytest.raises(UnreadableImageError) as caught:
        grey(made(RAMP, **elements))
    assert caught.value.reason == reason


def test_a_deflated_bomb_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedmedclip.edge_client.images.readers.dicom_file._MAX_INFLATED_BYTES", 1 << 20)
    content = made(np.zeros((2000, 2000), np.uint8), "1.2.840.10008.1.2.1.99")
    assert len(content) < 10_000
    with pytest.raises(UnreadableImageError, match="file too large"):
        grey(content)
    small = made(RAMP, "1.2.840.10008.1.2.1.99")
    np.testing.assert_array_equal(grey(small), scaled(RAMP, -1000, 975))


def test_a_compressed_frame_must_have_the_size_of_the_header() -> None:
    path = get_testdata_file("MR_small_jp2klossless.dcm")
    content = bytearray(Path(str(path)).read_bytes())
    at = content.index(b"\xff\x4f\xff\x51") + 8
    content[at : at + 8] = (60000).to_bytes(4, "big") * 2
    with pytest.raises(UnreadableImageError, match="corrupt"):
        grey(bytes(content))


def test_without_pydicom_the_advice_is_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pydicom", None)
    with pytest.raises(UnreadableImageError, match=r"pip install 'fedmedclip-edge\[dicom\]'"):
        grey(made(RAMP))


RAMP_16 = np.arange(0, 4096, 64, dtype=np.uint16).reshape(8, 8)
TWELVE_BITS = {"BitsStored": 12, "HighBit": 11}


@pytest.mark.parametrize(
    ("syntax", "reason"),
    [
        # GE's own, whose pixels are big endian in a little endian file.
        ("1.2.840.113619.5.2", "a private or unknown DICOM transfer syntax"),
        ("1.2.3.4.5.6", "a private or unknown DICOM transfer syntax"),
        # MPEG2, and a retired JPEG process.
        ("1.2.840.10008.1.2.4.100", "a DICOM compression that is not supported"),
        ("1.2.840.10008.1.2.4.55", "a DICOM compression that is not supported"),
    ],
)
@pytest.mark.parametrize("implicit", [False, True])
def test_a_transfer_syntax_that_is_not_read_is_named(syntax: str, reason: str, implicit: bool) -> None:
    content = dicom_file(
        image_elements(RAMP_16),
        native_bytes(RAMP_16),
        dicom_files.IMPLICIT if implicit else dicom_files.EXPLICIT,
    )
    head = dicom_file({}, b"", syntax)
    body = content[content.index(b"\x28\0\x02\0") :]
    with pytest.raises(UnreadableImageError) as caught:
        grey(head[: head.index(syntax.encode()) + len(syntax) + len(syntax) % 2] + body)
    assert caught.value.reason == reason


def test_blanks_behind_a_transfer_syntax_do_not_matter() -> None:
    content = dicom_file(image_elements(RAMP_16), native_bytes(RAMP_16))
    padded = content.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.1 ")
    np.testing.assert_array_equal(grey(padded), grey(content))


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        ({"PhotometricInterpretation": None}, "no photometric interpretation"),
        ({"PhotometricInterpretation": "  "}, "no photometric interpretation"),
        ({"PhotometricInterpretation": "RGB"}, "unusual colours"),
        ({"BitsAllocated": None}, "no bits allocated"),
        ({"BitsStored": None}, "no bits stored"),
        ({"PixelRepresentation": None}, "no pixel representation"),
        ({"PixelRepresentation": 7}, "no pixel representation"),
        ({"BitsAllocated": 12}, "unusual bits"),
        ({"BitsAllocated": 24}, "unusual bits"),
        ({"BitsStored": 17}, "unusual bits"),
        ({"BitsStored": 0}, "unusual bits"),
        ({"SamplesPerPixel": 4}, "unusual colours"),
    ],
)
def test_what_a_header_lacks_is_named(elements: dict[str, Any], reason: str) -> None:
    with pytest.raises(UnreadableImageError) as caught:
        grey(dicom_file(image_elements(RAMP_16) | elements, native_bytes(RAMP_16)))
    assert caught.value.reason == reason


@pytest.mark.parametrize("high_bit", [None, 0, 7, 16, 99])
def test_a_high_bit_that_cannot_be_is_none(high_bit: int | None) -> None:
    content = dicom_file(image_elements(RAMP_16, BitsStored=12, HighBit=high_bit), native_bytes(RAMP_16))
    np.testing.assert_array_equal(grey(content), scaled(RAMP_16, 0, RAMP_16.max()))


@pytest.mark.parametrize(
    ("frames", "reason"), [("1A", "corrupt"), ("1\\x", "corrupt"), ("", None), ("0", None)]
)
def test_a_number_of_frames(frames: str, reason: str | None) -> None:
    content = dicom_file(image_elements(RAMP_16, NumberOfFrames=frames), native_bytes(RAMP_16))
    if reason is None:
        np.testing.assert_array_equal(grey(content), scaled(RAMP_16, 0, RAMP_16.max()))
        return
    with pytest.raises(UnreadableImageError, match=reason):
        grey(content)


def test_a_frame_of_eight_bits_is_not_windowed_as_if_it_had_twelve() -> None:
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=100)
    wide = {
        "BitsAllocated": 16,
        "BitsStored": 12,
        "HighBit": 11,
        "WindowCenter": "2048",
        "WindowWidth": "4096",
    }
    with pytest.raises(UnreadableImageError, match="a frame of 8 bits with a header for more"):
        grey(dicom_file(image_elements(pixels) | wide, [stream.getvalue()], dicom_files.JPEG))
    # Wide cells alone are how the values lay before compression.
    content = dicom_file(image_elements(pixels, BitsAllocated=16), [stream.getvalue()], dicom_files.JPEG)
    np.testing.assert_allclose(grey(content), scaled(pixels, 0, 63), atol=5)


@pytest.mark.parametrize(
    ("syntax", "encode"),
    [
        (dicom_files.JPEG_LOSSLESS, jpeg_lossless),
        (dicom_files.JPEG_LS, jpeg_ls_frame),
        (dicom_files.JPEG_2000, jpeg_2000),
    ],
)
@pytest.mark.parametrize(("precision", "allocated"), [(8, 16), (12, 16), (16, 8)])
def test_a_frame_has_the_depth_that_it_says_itself(
    syntax: str, encode: Any, precision: int, allocated: int
) -> None:
    values = np.linspace(0, (1 << precision) - 1, 32 * 32).reshape(32, 32).astype(np.uint16)
    pixels = values.astype(np.uint8) if precision == 8 else values
    header = image_elements(pixels, BitsAllocated=allocated, BitsStored=allocated, HighBit=allocated - 1)
    shown = grey(dicom_file(header, [encode(pixels, precision)], syntax))
    np.testing.assert_allclose(shown, scaled(values, 0, values.max()), atol=1)


def test_functional_groups_without_a_usable_window_leave_it_to_the_file() -> None:
    own = {"FrameVOILUTSequence": [{"WindowCenter": "abc", "WindowWidth": "1"}]}
    header = image_elements(RAMP_16, **TWELVE_BITS, WindowCenter="1000", WindowWidth="801")
    header["PerFrameFunctionalGroupsSequence"] = [own]
    expected = scaled(RAMP_16, 999.5 - 400, 999.5 + 400)
    np.testing.assert_allclose(grey(dicom_file(header, native_bytes(RAMP_16))), expected, atol=1)
    header["PerFrameFunctionalGroupsSequence"] = ("LO", "no sequence")
    np.testing.assert_allclose(grey(dicom_file(header, native_bytes(RAMP_16))), expected, atol=1)


def test_segmented_palettes() -> None:
    """PS3.3 C.7.9: a discrete segment of two entries, then a linear one up to 62."""
    segments = bytes([0, 2, 0, 2, 1, 30, 62, 0])
    pixels = np.arange(0, 320, 5, dtype=np.uint16).reshape(8, 8)
    header = image_elements(pixels, PhotometricInterpretation="PALETTE COLOR")
    for colour in ("Red", "Green", "Blue"):
        header[f"{colour}PaletteColorLookupTableDescriptor"] = ("US", [32, 0, 8])
        header[f"Segmented{colour}PaletteColorLookupTableData"] = ("OW", segments)
    shown = grey(dicom_file(header, native_bytes(pixels)))
    np.testing.assert_array_equal(shown, (pixels.clip(0, 31) * 2))


@pytest.mark.parametrize("elements", [{"PixelAspectRatio": "4\\3"}, {"PixelSpacing": "1.0\\0.5"}])
def test_the_shape_of_pixels_is_not_applied(elements: dict[str, str]) -> None:
    plain = grey(dicom_file(image_elements(RAMP_16), native_bytes(RAMP_16)))
    np.testing.assert_array_equal(
        grey(dicom_file(image_elements(RAMP_16) | elements, native_bytes(RAMP_16))), plain
    )


HOSTILE = sorted((Path(__file__).parent / "hostile").iterdir())


@pytest.mark.parametrize("path", HOSTILE, ids=[path.name for path in HOSTILE])
def test_what_fuzzing_found_ends_well(path: Path) -> None:
    address = path.with_name(f"{path.name}#train=0") if path.suffix == ".npz" else path
    try:
        image = read_image(address)
    except UnreadableImageError as error:
        outcome = error.reason
    else:
        outcome = image.mode
    assert outcome in ("RGB", "truncated", "corrupt", "not an image archive")
