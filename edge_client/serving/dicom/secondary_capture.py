"""The answer as a picture, for viewers that show no reports: the image as it was read, the answer below."""

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from pydicom.dataset import Dataset
from pydicom.uid import SecondaryCaptureImageStorage

from fedmedclip.edge_client.serving.answer import Answer, Explanation
from fedmedclip.edge_client.serving.dicom.instance import SERIES_NUMBER, as_file, new_instance
from fedmedclip.edge_client.serving.dicom.wording import words_of

_SHORTEST_SIDE, _LONGEST_SIDE = 448, 1024
_FONT_SIZE, _LINE, _MARGIN = 16, 22, 10
_MOST_OPACITY = 0.6


def write_secondary_capture(source: Dataset, answer: Answer, pixels: npt.NDArray[np.uint8]) -> bytes:
    """Return a Secondary Capture image as a file (PS3.10), with the first result that was read.

    `source` is what `read_source` returns, `pixels` (height, width, 3) the image as the encoder took it.
    Where the answer has an explanation, the regions that carry it are shown beside the image. The same answer
    gives the same bytes.
    """
    result = next(result for result in answer.results if result.outcome != "unreadable")
    picture = _picture(pixels, result.explanation, words_of(result, answer))
    captured = new_instance(
        source,
        answer,
        "secondary capture",
        sop_class=SecondaryCaptureImageStorage,
        modality="OT",
        series_number=SERIES_NUMBER + 1,
    )
    captured.ConversionType = "WSD"
    captured.ImageComments = answer.notice
    captured.ImageType = ["DERIVED", "SECONDARY"]
    captured.PatientOrientation = ""
    reference = Dataset()
    reference.ReferencedSOPClassUID = source.SOPClassUID
    reference.ReferencedSOPInstanceUID = source.SOPInstanceUID
    captured.SourceImageSequence = [reference]
    captured.SamplesPerPixel = 3
    captured.PhotometricInterpretation = "RGB"
    captured.PlanarConfiguration = 0
    captured.Rows, captured.Columns = picture.shape[:2]
    captured.BitsAllocated = captured.BitsStored = 8
    captured.HighBit = 7
    captured.PixelRepresentation = 0
    content = picture.tobytes()
    captured.add_new("PixelData", "OB", content + b"\0" * (len(content) % 2))
    return as_file(captured)


def _picture(
    pixels: npt.NDArray[np.uint8], explanation: Explanation | None, lines: list[str]
) -> npt.NDArray[np.uint8]:
    image = Image.fromarray(pixels)
    scale = max(1.0, _SHORTEST_SIDE / min(image.size))
    scale = min(scale, max(1.0, _LONGEST_SIDE / max(image.size)))
    shown = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    panels = [shown] if explanation is None else [shown, _overlay(shown, explanation)]
    font = ImageFont.load_default(_FONT_SIZE)
    width = max(sum(panel.width for panel in panels), _SHORTEST_SIDE)
    rows = [row for line in lines for row in _wrapped(line, font, width - 2 * _MARGIN)]
    canvas = Image.new("RGB", (width, shown.height + 2 * _MARGIN + _LINE * len(rows)))
    for number, panel in enumerate(panels):
        canvas.paste(panel, (number * shown.width, 0))
    draw = ImageDraw.Draw(canvas)
    for number, row in enumerate(rows):
        draw.text((_MARGIN, shown.height + _MARGIN + number * _LINE), row, fill="white", font=font)
    return np.asarray(canvas)


def _overlay(shown: Image.Image, explanation: Explanation) -> Image.Image:
    """The image with red over what carries the answer, the more the redder."""
    regions = np.clip(np.asarray(explanation.regions, np.float32), 0, 1)
    opacity = Image.fromarray((255 * _MOST_OPACITY * regions).astype(np.uint8))
    opacity = opacity.resize(shown.size, Image.Resampling.BILINEAR)
    return Image.composite(Image.new("RGB", shown.size, (255, 0, 0)), shown, opacity)


def _wrapped(line: str, font: "ImageFont.FreeTypeFont | ImageFont.ImageFont", width: int) -> list[str]:
    """A line in as many as it needs; a word that is too long is broken."""
    rows, row = [], ""
    for character in line:
        if font.getlength(row + character) > width:
            head, blank, tail = row.rpartition(" ")
            rows.append(head if blank else row)
            row = tail if blank else ""
        row += character
    return [*rows, row]
