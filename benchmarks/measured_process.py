"""Run a command and print what it took, as one JSON object; and the peak memory of the process that asks.

    python -m benchmarks.measured_process COMMAND ARGUMENTS...

A process between the benchmark and the command, because Linux counts the memory of the parent at the time of
exec into a child's `ru_maxrss`: this one is small.
"""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path


def main() -> None:
    """Run, and print wall seconds, processor seconds and peak resident memory; exit as the command did."""
    started = time.perf_counter()
    process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    found = {
        "seconds": time.perf_counter() - started,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_megabytes": usage.ru_maxrss * 1024 / 1e6,
    }
    print(json.dumps(found))
    raise SystemExit(os.waitstatus_to_exitcode(status))


def peak_megabytes() -> float:
    """Return this process's own peak resident memory in MB (Linux)."""
    kibibytes = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert kibibytes is not None
    return int(kibibytes[1]) * 1024 / 1e6


if __name__ == "__main__":
    main()
