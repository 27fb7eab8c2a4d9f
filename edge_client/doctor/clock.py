"""The clock, as far as it can be judged without asking anybody: MQTT carries no time.

The protocol needs no exact time. TLS does: a box without a battery clock starts in the past, where no
certificate is valid yet.
"""

import ctypes
import struct
import sys
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from fedmedclip.edge_client.doctor.finding import Finding, bad, good, note

# adjtimex(2): the status bit of a clock that no time service keeps.
_UNSYNCHRONISED = 0x40
_TIMEX_BYTES = 512
# A file server's clock and the rounding of file systems.
_TOLERATED_SECONDS = 120.0
_ADVICE = "switch on a time service (`timedatectl set-ntp true`), or set the date"


def clock(past: Iterable[Path], now: float | None = None) -> Finding:
    """Judge the clock by the kernel's word and by files, `past`, that cannot be from the future."""
    now = time.time() if now is None else now
    shown = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d %H:%M UTC")
    for path in past:
        if path.exists() and (ahead := path.stat().st_mtime - now) > _TOLERATED_SECONDS:
            return bad("clock", f"it is {shown} here, {path} was written {ahead / 3600:.1f} h later", _ADVICE)
    match _kept_by_time_service():
        case True:
            return good("clock", f"{shown}; a time service keeps it")
        case False:
            return note("clock", f"{shown}; no time service keeps it, so it may drift", _ADVICE)
    return note("clock", f"{shown}; this system does not say whether a time service keeps it; compare it")


def _kept_by_time_service() -> bool | None:
    """What the kernel says (whoever keeps it: timesyncd, chrony, ntpd); None where it cannot be asked."""
    if not sys.platform.startswith("linux"):
        return None
    adjtimex = getattr(ctypes.CDLL(None), "adjtimex", None)
    # struct timex with modes = 0 only reads; `status` comes after an int, padded, and four longs.
    buffer = ctypes.create_string_buffer(_TIMEX_BYTES)
    if adjtimex is None or adjtimex(buffer) < 0:
        return None
    (status,) = struct.unpack_from("i", buffer.raw, 5 * ctypes.sizeof(ctypes.c_long))
    return not int(status) & _UNSYNCHRONISED
