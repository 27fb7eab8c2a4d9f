"""Whose image a DICOM file holds, as a keyed hash: the identifier itself leaves this module in no form.

A hash without a key would do for nothing: identifiers of a hospital are few enough to try them all.
"""

import hashlib
import hmac
from dataclasses import dataclass
from pathlib import Path

from fedmedclip.edge_client.images.readers.dicom import is_dicom
from fedmedclip.edge_client.images.readers.refusal import RefusedFileError
from fedmedclip.edge_client.images.readers.source import open_source

_PATIENT, _ISSUER, _STUDY = "PatientID", "IssuerOfPatientID", "StudyInstanceUID"
_DIGITS = 16


@dataclass(frozen=True)
class DicomSubject:
    """Keyed hashes of who was examined, and in which study; "" where the file does not say."""

    patient: str
    study: str


def keyed_hash(key: bytes, kind: str, value: bytes) -> str:
    """Return HMAC-SHA-256 of a value under the site's key, of which 16 hexadecimal digits are kept."""
    return hmac.new(key, kind.encode() + b"\0" + value, hashlib.sha256).hexdigest()[:_DIGITS]


def dicom_subject(path: Path, key: bytes) -> DicomSubject | None:
    """Return whose image a file holds; None when it is no DICOM file, or its header cannot be read.

    A patient is who has one PatientID of one issuer (IssuerOfPatientID, PS3.3 C.7.1.1).
    """
    try:
        with open_source(path, often=True) as source:
            if not is_dicom(source.head):
                return None
            from fedmedclip.edge_client.images.readers.dicom_file import read_elements
            from fedmedclip.edge_client.images.readers.dicom_values import raw_bytes

            header = read_elements(source.file, (_PATIENT, _ISSUER, _STUDY))
            patient, issuer, study = (
                raw_bytes(header, keyword).strip(b" \0") for keyword in (_PATIENT, _ISSUER, _STUDY)
            )
    except RefusedFileError:
        return None
    # What pydicom raises may quote the header; that a file is damaged is said when its image is read.
    except Exception:
        return None
    return DicomSubject(
        keyed_hash(key, "patient", issuer + b"\0" + patient) if patient else "",
        keyed_hash(key, "study", study) if study else "",
    )
