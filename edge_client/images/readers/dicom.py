"""DICOM files as 8-bit RGB. Needs the extra `[dicom]`; without it every such file is refused with advice.

Nothing that a header says leaves this module: reasons are fixed words, and what pydicom raises is dropped.
"""

from typing import BinaryIO

from PIL import Image

from fedmedclip.edge_client.images.readers.refusal import RefusedFileError, reason_of_decoding_error
from fedmedclip.edge_client.images.readers.settings import ReaderSettings
from fedmedclip.edge_client.images.readers.stored_form import StoredForm

_ADVICE = "DICOM: pip install 'fedmedclip-edge[dicom]'"


def is_dicom(head: bytes) -> bool:
    """Whether a file begins with a preamble and DICM, or like the header of an older file without them."""
    if head[128:132] == b"DICM":
        return True
    # Groups 2 and 8 come first; then an explicit value representation, or a small implicit length.
    return len(head) >= 8 and (
        (head[:2] in (b"\x02\0", b"\x08\0") and head[3:4] == b"\0")
        or (head[:2] == b"\0\x08" and head[4:6].isalpha())
    )


def read_dicom(file: BinaryIO, frame: int | None, settings: ReaderSettings) -> Image.Image:
    """Read one frame as RGB; `frame` counts from 1; None: as the settings say. Raises RefusedFileError."""
    _require_pydicom()
    from fedmedclip.edge_client.images.readers.dicom_display import display
    from fedmedclip.edge_client.images.readers.dicom_file import open_dicom
    from fedmedclip.edge_client.images.readers.dicom_frame import read_frame

    try:
        source = open_dicom(file)
        if frame is None:
            frame = 1 if settings.frames == "first" else (source.frames + 1) // 2
        if not 1 <= frame <= source.frames:
            raise RefusedFileError("no such frame")
        stored, bits = read_frame(source, frame - 1)
        return display(source, stored, bits, frame - 1, settings)
    except RefusedFileError:
        raise
    # `from None`: a traceback must not carry what pydicom quotes.
    except Exception as error:
        raise RefusedFileError(reason_of_decoding_error(error)) from None


def dicom_frames(file: BinaryIO) -> int:
    """Return the number of frames; 1 when that cannot be told."""
    try:
        _require_pydicom()
        from fedmedclip.edge_client.images.readers.dicom_file import open_dicom

        return open_dicom(file).frames
    except Exception:
        # What is wrong with the file is said when it is read.
        return 1


def dicom_form(file: BinaryIO) -> StoredForm:
    """Return how a DICOM file stores its pixels, by its header alone.

    Raises RefusedFileError, and whatever pydicom raises about damage, which may quote the header.
    """
    _require_pydicom()
    from fedmedclip.edge_client.images.readers.dicom_file import open_dicom
    from fedmedclip.edge_client.images.readers.dicom_values import number, text

    source = open_dicom(file)
    colours = "grey" if number(source.header, "SamplesPerPixel", 1) == 1 else "colour"
    if text(source.header, "PhotometricInterpretation").startswith("PALETTE"):
        colours = "palette"
    return StoredForm("DICOM", number(source.header, "BitsStored"), colours, source.size)


def _require_pydicom() -> None:
    try:
        import pydicom  # noqa: F401
    except ImportError:
        raise RefusedFileError(_ADVICE) from None
