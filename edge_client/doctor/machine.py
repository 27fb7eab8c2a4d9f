"""The machine itself: processor, memory, disk."""

import platform
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from fedmedclip.edge_client.cores import available_cores
from fedmedclip.edge_client.doctor.finding import Finding, bad, good, note
from fedmedclip.protocol.private_files import readers_allowed, readers_fault

MEGABYTE = 1 << 20
# Python, numpy, ONNX Runtime and Pillow; with PyTorch for training.
BASE_MEGABYTES = 100
TRAINING_MEGABYTES = 400
LEAST_DISK_MEGABYTES = 200
COMFORTABLE_DISK_MEGABYTES = 1000

_EIGHT_BIT_X86 = {"avx512_vnni": "AVX-512 VNNI", "avx_vnni": "AVX-VNNI", "amx_int8": "AMX"}
_EIGHT_BIT_ARM = {"asimddp": "NEON dot product", "i8mm": "NEON int8 matrices", "sve": "SVE"}


def processor(information: Path = Path("/proc/cpuinfo")) -> Finding:
    """Say what the processor has for the encoder's matrix products."""
    cores = available_cores()
    name = f"{platform.machine()}, {cores} core{'s' * (cores > 1)}"
    flags = _flags(information)
    if not flags:
        return note("processor", f"{name}; this system does not say what it can do")
    arm = platform.machine().lower() in {"aarch64", "arm64"}
    known = _EIGHT_BIT_ARM if arm else _EIGHT_BIT_X86
    if has := [words for flag, words in known.items() if flag in flags]:
        return good("processor", f"{name}, quick 8-bit products ({', '.join(has)})")
    if arm:
        return note("processor", f"{name}, without dot products: 8-bit encoders run, but slowly")
    if "avx2" in flags:
        return note(
            "processor",
            f"{name}, AVX2 without VNNI: full 8-bit weights can overflow",
            "run `fedmedclip bundle verify` on the bundle; if its self-test fails, ask for an fp32 bundle",
        )
    return note("processor", f"{name}, without AVX2: expect a few images a second at most")


def memory(bundle_bytes: int, training: bool, table: Path = Path("/proc/meminfo")) -> Finding:
    """Compare the memory that is free with what an encoder of this size, or training, needs."""
    sizes = _memory_sizes(table)
    # An encoder is held once as the file has it and once, while it loads, as the processor wants it.
    needed = BASE_MEGABYTES + max(2 * bundle_bytes // MEGABYTE, TRAINING_MEGABYTES if training else 0)
    if "MemTotal" not in sizes:
        return note("memory", f"this system does not say how much it has; about {needed} MB are needed")
    total, available = sizes["MemTotal"], sizes.get("MemAvailable", sizes["MemTotal"])
    words = f"{total} MB, {available} MB free; about {needed} MB are needed"
    if available < needed:
        return bad("memory", words, "end other programs, or ask for a bundle of a smaller model or in int8")
    return good("memory", words)


def disk(folder: Path) -> Finding:
    """Look for space, and for the right to write, where the state goes; nothing is left there."""
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(existing).free // MEGABYTE
    words = f"{free} MB free at {existing}"
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        return bad("disk", f"cannot write at {existing} ({error.strerror})", "give this user the right to")
    if free < LEAST_DISK_MEGABYTES:
        return bad("disk", words, f"make room: {LEAST_DISK_MEGABYTES} MB at least")
    if free < COMFORTABLE_DISK_MEGABYTES:
        return note("disk", words, "100,000 images' features take about 220 MB")
    return good("disk", words)


def secrets(files: Mapping[str, Path | str | None]) -> Finding:
    """Say which of the files with secrets, by their settings, other users of this machine can read."""
    faults = {
        name: fault
        for name, path in files.items()
        if path is not None and (fault := readers_fault(Path(path)))
    }
    if not faults:
        return good("secrets", "no other user of this machine can read a key or password")
    words, _, advice = next(iter(faults.values())).partition("; ")
    say = note if readers_allowed() else bad
    return say("secrets", f"{', '.join(faults)} {words}", advice)


def _flags(information: Path) -> set[str]:
    try:
        lines = information.read_text(errors="replace").splitlines()
    except OSError:
        return set()
    return {
        flag
        for line in lines
        if line.startswith(("flags", "Features"))
        for flag in line.split(":")[1].split()
    }


def _memory_sizes(table: Path) -> dict[str, int]:
    """Return the sizes of /proc/meminfo in megabytes, no more than a container's limit."""
    try:
        rows = [line.split() for line in table.read_text().splitlines()]
    except OSError:
        return {}
    sizes = {row[0].rstrip(":"): int(row[1]) // 1024 for row in rows if len(row) > 1}
    try:
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text()) // MEGABYTE
        used = int(Path("/sys/fs/cgroup/memory.current").read_text()) // MEGABYTE
    except (OSError, ValueError):
        return sizes
    return {
        "MemTotal": min(sizes.get("MemTotal", limit), limit),
        "MemAvailable": min(sizes.get("MemAvailable", limit), max(0, limit - used)),
    }
