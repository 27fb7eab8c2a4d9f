"""What a process holds and has used, as Linux tells it."""

import os
from pathlib import Path


def resident_megabytes(process: int) -> float:
    """Return how much memory a process has now, in MiB."""
    return _field(process, "status", "VmRSS") / 1024


def own_megabytes(process: int) -> float:
    """Return how much of a process's memory, in MiB, is its own: without files, whose pages come and go."""
    return (_field(process, "status", "RssAnon") + _field(process, "status", "VmSwap")) / 1024


def peak_megabytes(process: int) -> float:
    """Return the most memory that a process has had, in MiB."""
    return _field(process, "status", "VmHWM") / 1024


def written_bytes(process: int) -> int:
    """Return how many bytes a process has had written to the disk."""
    return _field(process, "io", "write_bytes")


def processor_seconds(process: int) -> float:
    """Return the processor time that a process has used."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def open_descriptors(process: int) -> int:
    """Return how many files and sockets a process has open."""
    return len(os.listdir(f"/proc/{process}/fd"))


def folder_bytes(folder: Path) -> int:
    """Return how much disk the files in a folder take, whether they are full or not."""
    return sum(512 * file.stat().st_blocks for file in folder.iterdir())


def _field(process: int, file: str, name: str) -> int:
    lines = Path(f"/proc/{process}/{file}").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))
