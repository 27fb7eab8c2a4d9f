"""What a report and a secondary capture have in common: patient, study, series, equipment, and their file."""

import io

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from fedmedclip.edge_client.serving.answer import Answer
from fedmedclip.edge_client.serving.dicom import quiet as quiet
from fedmedclip.edge_client.serving.dicom.identifiers import (
    IMPLEMENTATION_CLASS_UID,
    answered_at,
    derived_uid,
    device_name,
    implementation_version,
    uid_of,
)
from fedmedclip.edge_client.serving.dicom.source import take_over

MANUFACTURER = "fedmedclip-edge contributors"
# Out of the way of an examination's own series.
SERIES_NUMBER = 9801
_LONGEST_TEXT = 64


def new_instance(
    source: Dataset, answer: Answer, what: str, *, sop_class: str, modality: str, series_number: int
) -> Dataset:
    """Return an instance in the study of `source` (`read_source`).

    It is in the one series of all that this box makes of its kind for the image's series, at the image's
    number: a series for each report would fill a viewer's list with as many as there are slices. `what` is
    "report" or another part of the answer, from which its UIDs are derived. The same answer gives the same
    elements.
    """
    moment = answered_at(answer)
    made = Dataset()
    take_over(source, made)
    made.SOPClassUID = sop_class
    made.SOPInstanceUID = uid_of(answer, what)
    made.SeriesInstanceUID = derived_uid(
        f"{what} {source.StudyInstanceUID} {source.SeriesInstanceUID} {device_name(answer)}"
    )
    made.SeriesNumber = series_number
    made.InstanceNumber = source.InstanceNumber
    made.Modality = modality
    made.SeriesDescription = f"AI {what}, research use only"
    made.Manufacturer = MANUFACTURER
    made.ManufacturerModelName = "fedmedclip-edge"
    made.SoftwareVersions = answer.provenance.software[:_LONGEST_TEXT]
    made.InstanceCreationDate = made.ContentDate = moment.strftime("%Y%m%d")
    made.InstanceCreationTime = made.ContentTime = moment.strftime("%H%M%S.%f")
    return made


def as_file(made: Dataset) -> bytes:
    """Return an instance as a file (PS3.10), in Explicit VR Little Endian."""
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.file_meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    made.file_meta.ImplementationVersionName = implementation_version()
    with io.BytesIO() as file:
        made.save_as(file, enforce_file_format=True)
        return file.getvalue()
