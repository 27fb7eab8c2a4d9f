"""Values of DICOM elements, whatever value representation a writer gave them.

A window is found as decimal strings (DS), as any kind of text, as binary floats, or under VR UN; a lookup
table as US, SS, OW or OB. So values are taken from an element's bytes, and what is no number is NaN: it stops
no file.
"""

import re
from collections.abc import Sequence as AnySequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from fedmedclip.edge_client.images.readers.refusal import RefusedFileError

_BINARY = {
    "US": "u2", "SS": "i2", "UL": "u4", "SL": "i4", "UV": "u8", "SV": "i8", "FL": "f4", "FD": "f8",
    "OW": "u2", "US or SS": "u2", "US or OW": "u2", "US or SS or OW": "u2",
}  # fmt: skip
_NUMBER = re.compile(r"[+-]?([0-9]+[.,]?[0-9]*|[.,][0-9]+)([eE][+-]?[0-9]{1,4})?")


@dataclass(frozen=True)
class _Element:
    """`content` is as in the file; `order` is "<" or ">"."""

    vr: str
    content: bytes
    order: str


def numbers(dataset: Dataset, keyword: str) -> list[float]:
    """Return the values of an element; NaN for one that is empty or no number, [] for a missing element.

    A comma in a text is a decimal point, which DICOM's decimal strings cannot hold and some writers use.
    """
    element = _element(dataset, keyword)
    if element is None:
        return []
    if kind := _BINARY.get(element.vr):
        dtype = np.dtype(element.order + kind)
        whole = len(element.content) // dtype.itemsize * dtype.itemsize
        return [float(value) for value in np.frombuffer(element.content[:whole], dtype)]
    written = element.content.decode("ascii", "replace")
    return [_number(one) for one in written.split("\\")] if written.strip(" \0") else []


def number(dataset: Dataset, keyword: str, default: int = 0) -> int:
    """Return an element as an integer; the default when it is missing, empty, or has several values."""
    values = numbers(dataset, keyword)
    return int(values[0]) if len(values) == 1 and np.isfinite(values[0]) else default


def required_number(dataset: Dataset, keyword: str, name: str) -> int:
    """Return an element that pixels cannot be read without. Raises RefusedFileError, which says its name."""
    values = numbers(dataset, keyword)
    if len(values) != 1 or not np.isfinite(values[0]):
        raise RefusedFileError(f"no {name}")
    return int(values[0])


def text(dataset: Dataset, keyword: str) -> str:
    """Return an element as a term in capitals, "" when it is missing."""
    element = _element(dataset, keyword)
    return "" if element is None else element.content.decode("ascii", "replace").strip(" \0").upper()


def raw_bytes(dataset: Dataset, keyword: str) -> bytes:
    """Return an element as it is in the file, b"" when it is missing."""
    element = _element(dataset, keyword)
    return b"" if element is None else element.content


def words(dataset: Dataset, keyword: str) -> npt.NDArray[np.uint16] | None:
    """Return the unsigned 16-bit values of an element, whatever sign its VR gives them; None without it."""
    element = _element(dataset, keyword)
    if element is None:
        return None
    whole = element.content[: len(element.content) // 2 * 2]
    order = "<" if element.vr == "OB" else element.order
    return np.frombuffer(whole, f"{order}u2").astype(np.uint16)


def items(dataset: Dataset, keyword: str) -> AnySequence[Dataset]:
    """Return the items of a sequence; none where there is no sequence."""
    if keyword not in dataset:
        return []
    try:
        value = dataset[keyword].value
    # pydicom reads a sequence when it is asked for, and says in many ways that one is damaged.
    except Exception:
        return []
    return value if isinstance(value, Sequence) else []


def _element(dataset: Dataset, keyword: str) -> _Element | None:
    if keyword not in dataset:
        return None
    raw = dataset.get_item(keyword)
    if not isinstance(raw, RawDataElement) or not isinstance(raw.value, bytes):
        return None
    if raw.VR in (None, "UN"):
        order = "<" if raw.is_little_endian or raw.VR == "UN" else ">"
        return _Element(dictionary_VR(raw.tag), raw.value, order)
    return _Element(raw.VR, raw.value, "<" if raw.is_little_endian else ">")


def _number(written: str) -> float:
    written = written.strip(" \0\t\r\n")
    return float(written.replace(",", ".")) if _NUMBER.fullmatch(written) else np.nan
