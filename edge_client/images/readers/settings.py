"""The choices that a site makes about reading, where a file offers more than one image."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from fedmedclip.protocol.errors import InvalidInputError

WindowNumber = Annotated[int, Meta(ge=1, le=1000)]
# Not tuple[float, float]: beside an int and a text, msgspec 0.22 decodes that to objects that crash the next
# garbage collection.
CentreAndWidth = Annotated[tuple[float, ...], Meta(min_length=2, max_length=2)]
Window = WindowNumber | Literal["range"] | CentreAndWidth


class ReaderSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which frames of a file, and which grey values of it, become images.

    `frames`: "auto" takes the middle frame of a DICOM file or a NIfTI volume and the first page of a TIFF,
    and refuses animations; "first", "middle" and "all" hold for every kind of file.

    `window`: a number takes that window (or VOI LUT) of a DICOM file, counted from 1; a pair (centre, width),
    in the units of the values (Hounsfield units in CT), is used instead of the file's own; "range" maps the
    smallest value to black and the largest to white. Whatever the setting, a file without a window is read by
    its range.

    Raises InvalidInputError for a width that is not positive.
    """

    frames: Literal["auto", "first", "middle", "all"] = "auto"
    window: Window = 1

    def __post_init__(self) -> None:
        if isinstance(self.window, tuple):
            centre, width = self.window
            if not (0 < width < 1e30 and abs(centre) < 1e30):
                raise InvalidInputError(f"window {list(self.window)}: the width must be above 0")


DEFAULT_READING = ReaderSettings()


def parse_window(text: str) -> Window:
    """Return the window that a person types: "2", "range", or "centre,width" such as "40,400".

    Raises InvalidInputError when it is none of these.
    """
    if text == "range":
        return "range"
    try:
        if "," in text:
            centre, width = (float(part) for part in text.split(","))
            return ReaderSettings(window=(centre, width)).window
        if 1 <= (number := int(text)) <= 1000:
            return number
    except ValueError:
        pass
    raise InvalidInputError(f"window {text!r}: give a number from 1, 'range', or CENTRE,WIDTH such as 40,400")
