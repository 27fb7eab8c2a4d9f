"""The images that the doors are given: real JPEGs, and the same as DICOM files with UIDs of their own."""

import io
import uuid
from pathlib import Path

import numpy as np
from PIL import Image

_UID_LENGTH = 44


def jpegs(folder: Path, count: int) -> list[bytes]:
    """Return the first JPEGs below a folder, as they are. AssertionError when there is none."""
    found = [path.read_bytes() for path in sorted(folder.rglob("*.jpg"))[:count]]
    assert found, f"there is no .jpg below {folder}"
    return found


def new_uid() -> str:
    """Return a UID that nobody had before, always of the same length."""
    while True:
        uid = f"2.25.{uuid.uuid4().int}"
        if len(uid) == _UID_LENGTH:
            return uid


class DicomPicture:
    """The pixels of a JPEG as an uncompressed 8-bit DICOM file, copied with ever new SOP Instance UIDs."""

    def __init__(self, jpeg: bytes) -> None:
        import pydicom
        from pydicom.uid import UID, ExplicitVRLittleEndian, SecondaryCaptureImageStorage

        pixels = np.asarray(Image.open(io.BytesIO(jpeg)).convert("L"))
        self._uid = new_uid()
        meta = pydicom.dataset.FileMetaDataset()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
        meta.MediaStorageSOPInstanceUID = UID(self._uid)
        data = pydicom.Dataset()
        data.file_meta = meta
        data.SOPClassUID = meta.MediaStorageSOPClassUID
        data.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
        data.StudyInstanceUID, data.SeriesInstanceUID = new_uid(), new_uid()
        data.PatientName, data.PatientID, data.PatientBirthDate, data.PatientSex = "Nobody", "0", "", ""
        data.StudyID, data.AccessionNumber, data.ReferringPhysicianName = "1", "", ""
        data.StudyDate, data.StudyTime, data.Modality = "20260101", "120000", "MR"
        data.SeriesNumber, data.InstanceNumber, data.ConversionType = 1, 1, "WSD"
        data.Rows, data.Columns = pixels.shape
        data.SamplesPerPixel, data.PhotometricInterpretation, data.PixelRepresentation = 1, "MONOCHROME2", 0
        data.BitsAllocated, data.BitsStored, data.HighBit = 8, 8, 7
        data.PixelData = pixels.tobytes() + b"\0" * (pixels.size % 2)
        file = io.BytesIO()
        data.save_as(file, enforce_file_format=True)
        self.content = file.getvalue()

    def copy(self) -> tuple[str, bytes]:
        """Return a new SOP Instance UID, and the file that has it."""
        uid = new_uid()
        return uid, self.content.replace(self._uid.encode(), uid.encode())
