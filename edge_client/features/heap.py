"""Make the C library give freed memory back."""

import ctypes
import sys
from functools import cache

_M_MMAP_THRESHOLD = -3
# glibc's own first value, in bytes; setting it keeps it from growing.
_THRESHOLD = 128 * 1024


@cache
def return_freed_memory() -> None:
    """Keep glibc from raising the size above which it returns freed memory at once (mallopt(3)).

    Otherwise it raises it to the size of whatever large piece was freed last, and what is freed while an
    encoder loads, weights in two layouts, stays with the process. Does nothing with another C library.
    """
    if sys.platform.startswith("linux"):
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(_M_MMAP_THRESHOLD, _THRESHOLD)
