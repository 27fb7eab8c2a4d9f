"""Encoders of compressed DICOM frames that know nothing of our readers."""

from typing import Any

import jpeg_ls
import numpy as np
import numpy.typing as npt
from openjpeg.utils import encode_buffer

Cells = npt.NDArray[Any]


def rle(cells: Cells) -> bytes:
    """RLE Lossless (PS3.5 Annex G): a segment for each byte of each sample, here of literal runs alone."""
    planes = cells.reshape(*cells.shape[:2], -1)
    segments = []
    for sample in range(planes.shape[2]):
        plane = np.ascontiguousarray(planes[..., sample].astype(cells.dtype.newbyteorder(">")))
        of_bytes = plane.view(np.uint8).reshape(-1, cells.dtype.itemsize)
        segments += [_literals(of_bytes[:, number].tobytes()) for number in range(cells.dtype.itemsize)]
    starts = 64 + np.cumsum([0, *map(len, segments[:-1])])
    header = np.zeros(16, "<u4")
    header[0], header[1 : 1 + len(segments)] = len(segments), starts
    return header.tobytes() + b"".join(segments)


def _literals(content: bytes) -> bytes:
    runs = [content[at : at + 128] for at in range(0, len(content), 128)]
    coded = b"".join(bytes([len(run) - 1]) + run for run in runs)
    return coded + b"\0" * (len(coded) % 2)


def jpeg_lossless(cells: Cells, precision: int) -> bytes:
    """Lossless JPEG with the first predictor (ISO/IEC 10918-1 H); categories of differences are 5 bits."""
    samples = cells.reshape(*cells.shape[:2], -1).astype(np.int64) & (1 << precision) - 1
    height, width, count = samples.shape
    predicted = np.empty_like(samples)
    predicted[:, 1:] = samples[:, :-1]
    predicted[1:, 0] = samples[:-1, 0]
    predicted[0, 0] = 1 << precision - 1
    bits = ""
    for difference in ((samples - predicted + 0x8000) % 0x10000 - 0x8000).reshape(-1).tolist():
        category = 16 if difference == -0x8000 else abs(difference).bit_length()
        bits += f"{category:05b}"
        if 0 < category < 16:
            bits += f"{difference if difference > 0 else difference + (1 << category) - 1:0{category}b}"
    bits += "1" * (-len(bits) % 8)
    scan = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")
    frame = bytes([precision]) + height.to_bytes(2, "big") + width.to_bytes(2, "big") + bytes([count])
    frame += b"".join(bytes([number + 1, 0x11, 0]) for number in range(count))
    codes = b"\0" + bytes([0, 0, 0, 0, 17, *([0] * 11)]) + bytes(range(17))
    start = bytes([count]) + b"".join(bytes([number + 1, 0]) for number in range(count)) + b"\1\0\0"
    parts = [(b"\xc3", frame), (b"\xc4", codes), (b"\xda", start)]
    head = b"".join(b"\xff" + mark + (len(part) + 2).to_bytes(2, "big") + part for mark, part in parts)
    return b"\xff\xd8" + head + scan + b"\xff\xd9"


def jpeg_ls_frame(cells: Cells, precision: int) -> bytes:
    """JPEG-LS has no sign: the bits of a negative value are those of a large one."""
    height, width = cells.shape[:2]
    count = 1 if cells.ndim == 2 else cells.shape[2]
    unsigned = cells.astype(np.int64) & (1 << precision) - 1
    content = unsigned.astype("u1" if precision <= 8 else "<u2").tobytes()
    mode = 0 if count == 1 else 2
    return bytes(jpeg_ls.encode_buffer(content, height, width, count, precision, 0, mode))


def jpeg_2000(cells: Cells, precision: int, *, transformed: bool = False) -> bytes:
    """A lossless codestream; `transformed` has its reversible component transformation."""
    height, width = cells.shape[:2]
    count = 1 if cells.ndim == 2 else cells.shape[2]
    kind = cells.dtype.kind + ("1" if precision <= 8 else "2")
    return bytes(
        encode_buffer(
            cells.astype(f"<{kind}").tobytes(),
            width,
            height,
            count,
            precision,
            cells.dtype.kind == "i",
            photometric_interpretation=1 if transformed else 0,
            use_mct=transformed,
        )
    )
