"""What a report takes over from the image that it is about: patient, study, and which image it is."""

import re
from pathlib import Path

from pydicom.dataset import Dataset

from fedmedclip.edge_client.images.readers.dicom_file import read_elements
from fedmedclip.edge_client.serving.dicom import quiet as quiet
from fedmedclip.edge_client.serving.outlet import DeliveryError

_IDENTITY = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
# Of type 1 or 2 in the Patient and General Study modules: there, if empty (PS3.3 C.7.1.1 and C.7.2.1).
_REQUIRED = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
    "StudyID",
    "AccessionNumber",
)
# Where the image stands in its series, for the report that stands in the series of reports.
_PLACE = "InstanceNumber"
_OPTIONAL = (
    "IssuerOfPatientID",
    "PatientAge",
    "PatientSize",
    "PatientWeight",
    "StudyDescription",
    "PatientIdentityRemoved",
    "DeidentificationMethod",
    "TimezoneOffsetFromUTC",
)
_FORMS = {
    "PatientBirthDate": re.compile(r"[0-9]{8}"),
    "StudyDate": re.compile(r"[0-9]{8}"),
    "StudyTime": re.compile(r"[0-9]{2}([0-9]{2}([0-9]{2}(\.[0-9]{1,6})?)?)?"),
    "PatientSex": re.compile("[MFO]"),
    "InstanceNumber": re.compile("[0-9]{1,9}"),
    "PatientAge": re.compile("[0-9]{3}[DWMY]"),
    "PatientSize": re.compile(r"[0-9]{1,4}(\.[0-9]{1,8})?"),
    "PatientWeight": re.compile(r"[0-9]{1,4}(\.[0-9]{1,8})?"),
    "TimezoneOffsetFromUTC": re.compile("[+-][0-9]{4}"),
}
CHARACTER_SET = "ISO_IR 192"
_CONTROL = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")


def read_source(content: Path) -> Dataset:
    """Return a data set of the patient, the study and the identity of the image in a DICOM file.

    Texts are Unicode, to be written as UTF-8 (`CHARACTER_SET`), whatever the file writes them in; what is
    missing or is of no valid form is empty. Raises DeliveryError, which is permanent, for a file without the
    UIDs that a report refers to.
    """
    try:
        with content.open("rb") as file:
            header = read_elements(file, (*_IDENTITY, *_REQUIRED, *_OPTIONAL, _PLACE))
    # What pydicom raises may quote the header.
    except Exception:
        raise DeliveryError("no report: the image's header cannot be read", permanent=True) from None
    source = Dataset()
    for keyword in _IDENTITY:
        if not (value := _text(header, keyword)):
            raise DeliveryError(f"no report: the image has no {keyword}", permanent=True)
        setattr(source, keyword, value)
    for keyword in _REQUIRED:
        setattr(source, keyword, _text(header, keyword))
    for keyword in _OPTIONAL:
        if value := _text(header, keyword):
            setattr(source, keyword, value)
    source.InstanceNumber = _text(header, _PLACE) or "1"
    source.SpecificCharacterSet = CHARACTER_SET
    return source


def take_over(source: Dataset, target: Dataset) -> None:
    """Give patient and study of a source to what is made of it, with the character set that they are in."""
    target.SpecificCharacterSet = CHARACTER_SET
    target.StudyInstanceUID = source.StudyInstanceUID
    for keyword in (*_REQUIRED, *_OPTIONAL):
        if keyword in source:
            setattr(target, keyword, source[keyword].value)


def _text(header: Dataset, keyword: str) -> str:
    try:
        value = header.get(keyword)
    # An element that cannot be understood is as good as none.
    except Exception:
        return ""
    if value is None or value == "":
        return ""
    # Several values of an element for one are written as they were, with the backslash between them.
    parts = value if isinstance(value, list | tuple) or hasattr(value, "insert") else [value]
    text = "\\".join(_CONTROL.sub("", str(part)).strip() for part in parts)
    form = _FORMS.get(keyword)
    return "" if form is not None and not form.fullmatch(text) else text
