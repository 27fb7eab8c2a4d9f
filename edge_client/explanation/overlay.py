"""The picture of an explanation: the image as the encoder sees it, and beside it the regions that carry the
answer.
"""

import io

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from fedmedclip.edge_client.heads.assurance import UNLIKE
from fedmedclip.edge_client.inference.classifier import Explanation
from fedmedclip.edge_client.inference.regions import LEAST_LOSS, SAYS_LITTLE
from fedmedclip.protocol.visible import visible

NOTICE = "Research use only; not for diagnosis."

Pixels = npt.NDArray[np.uint8]
_PANEL = 400
"""Least height of a panel in pixels; smaller images are enlarged by a whole factor."""
_TINT = np.array([255.0, 140.0, 0.0])
_DIMMED = 0.55
_TINTED = 0.5
_OUTLINED = 0.5
_MARGIN = 10
_FONT = 16


def overlay_png(explanation: Explanation) -> bytes:
    """Return the picture as PNG; equal explanations give equal bytes.

    What carries the answer is left bright, tinted and outlined at half of the most, so that it can be told
    in grey too; the rest is dimmed. Below stand label, probability, how it was found, and that it is for
    research only.
    """
    plain = _enlarged(explanation.pixels)
    height, width = plain.shape[:2]
    heat = explanation.regions.in_pixels(height, width)
    lines = caption(explanation)
    line_height = round(1.4 * _FONT)
    page = Image.new(
        "RGB", (2 * width + 3 * _MARGIN, height + 2 * _MARGIN + line_height * len(lines) + _MARGIN), "white"
    )
    page.paste(Image.fromarray(plain), (_MARGIN, _MARGIN))
    page.paste(Image.fromarray(_tinted(plain, heat)), (width + 2 * _MARGIN, _MARGIN))
    draw = ImageDraw.Draw(page)
    for number, line in enumerate(lines):
        place = (_MARGIN, height + 2 * _MARGIN + number * line_height)
        draw.text(place, line, fill="black", font=_font_for(draw, line, page.width - 2 * _MARGIN))
    file = io.BytesIO()
    page.save(file, "PNG")
    return file.getvalue()


def caption(explanation: Explanation) -> list[str]:
    """Return the lines below the picture, which a terminal shows too."""
    regions = explanation.regions
    lines = [
        f"{visible(explanation.label)}  {explanation.probability:.1%}",
        f"{regions.kind}; at most {regions.largest_loss:.2f} nats",
    ]
    if explanation.prediction.outcome == UNLIKE:
        lines[0] = f"No answer: unlike the training images ({lines[0]})"
    if regions.largest_loss < LEAST_LOSS:
        lines.append(SAYS_LITTLE)
    return [*lines, NOTICE]


def _enlarged(pixels: Pixels) -> Pixels:
    factor = max(1, -(-_PANEL // pixels.shape[0]))
    return pixels.repeat(factor, axis=0).repeat(factor, axis=1)


def _tinted(plain: Pixels, heat: npt.NDArray[np.float32]) -> Pixels:
    strength = heat[..., None].astype(np.float64)
    shown = plain * (_DIMMED + (1 - _DIMMED) * strength)
    shown += _TINTED * strength * (_TINT - shown)
    edge = _edge(heat >= _OUTLINED)
    shown[_grown(edge)] = 0
    shown[edge] = 255
    return np.rint(shown).astype(np.uint8)


def _edge(inside: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Return what lies inside beside what does not; the picture's own border is no edge."""
    padded = np.pad(inside, 1, mode="edge")
    surrounded = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    edge: npt.NDArray[np.bool_] = inside & ~surrounded
    return edge


def _grown(edge: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    padded = np.pad(edge, 1)
    grown: npt.NDArray[np.bool_] = padded[:-2, 1:-1] | padded[2:, 1:-1] | padded[1:-1, :-2] | padded[1:-1, 2:]
    return grown


def _font_for(
    draw: ImageDraw.ImageDraw, line: str, width: int
) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return the usual font, or a smaller one in which a long line fits."""
    font = ImageFont.load_default(_FONT)
    length = draw.textlength(line, font=font)
    return font if length <= width else ImageFont.load_default(max(6, _FONT * width / length))
