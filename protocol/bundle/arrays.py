"""The arrays of a bundle: .npy files, of which nothing is believed before it is compared."""

import ast
import os
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
import numpy.typing as npt
from numpy.lib import format as npy

from fedmedclip.protocol.errors import BundleError
from fedmedclip.protocol.paths import open_regular_file

Scalar = TypeVar("Scalar", bound=np.generic)

# Of each version of the format, how many bytes say how long the header is.
_LENGTH_BYTES = {(1, 0): 2, (2, 0): 4}
# One of a usual array has 128 bytes.
_LONGEST_HEADER = 4096


def read_array(
    path: Path, dtype: type[Scalar], rows: tuple[int, int], row: tuple[int, ...]
) -> npt.NDArray[Scalar]:
    """Return the array (N, *row) of an .npy file, with N from the first of `rows` to the last.

    Memory is taken for what the file holds, once its header names this dtype and such a shape: numpy's own
    reader takes as much as a header says, and only then looks whether it is there. Raises BundleError for
    anything else.
    """
    try:
        with open_regular_file(path) as file:
            shape, is_transposed, found = _header(file)
            is_expected = found == dtype and shape[1:] == row and rows[0] <= (shape or (0,))[0] <= rows[1]
            if is_expected and os.fstat(file.fileno()).st_size - file.tell() == _size(shape, found):
                content = file.read()
            elif is_expected:
                raise ValueError("it has more or fewer values than its header says")
    # Of a damaged header the parsers raise almost anything.
    except Exception as error:
        raise BundleError(f"{path} is not a readable array ({error}); export the bundle again") from error
    if not is_expected:
        least, most = rows
        count = str(most) if least == most else f"{least} to {most}"
        wanted = f"({', '.join([count, *map(str, row)])})"
        raise BundleError(
            f"{path} is {found} {shape}, expected {np.dtype(dtype)} {wanted}; export the bundle again"
        )
    values = np.frombuffer(content, dtype)
    return values.reshape(shape, order="F" if is_transposed else "C").copy()


def _header(file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Return shape, whether columns come first, and dtype.

    numpy's own reader looks at a header that is no literal a second time, word by word, which takes 0.2 s.
    """
    length = int.from_bytes(file.read(_LENGTH_BYTES[npy.read_magic(file)]), "little")
    if length > _LONGEST_HEADER:
        raise ValueError(f"its header has {length} bytes, at most {_LONGEST_HEADER} are read")
    header = ast.literal_eval(file.read(length).decode("latin-1"))
    shape = header["shape"]
    if not isinstance(shape, tuple) or not all(type(length) is int and length >= 0 for length in shape):
        raise ValueError("its header names no shape")
    return shape, bool(header["fortran_order"]), npy.descr_to_dtype(header["descr"])


def _size(shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
    size = dtype.itemsize
    for length in shape:
        size *= length
    return size
