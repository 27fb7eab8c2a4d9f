"""Throws damaged image files at the readers and keeps what they do not bear.

    python -m benchmarks.encoder.fuzz_readers --seconds 1200 --seed 1 --out findings
    python -m benchmarks.encoder.fuzz_readers --seconds 1200 --engine atheris --out findings

Every input must give an RGB image or an `UnreadableImageError` with a short reason, within 10 seconds of CPU
and 1.5 GB, and must not end the process. Each input runs in a worker process that this one watches, so that a
crash inside a decoder's native code is found as well. What fails is written to the folder as a file, to
become a test.

The engine "mutations" damages real files: those that pydicom carries, and one of each other kind made here.
It knows where DICOM elements begin and gives them hostile values. "atheris" (which has to be installed)
starts from the same files and is led by the coverage of the readers' own Python code.
"""

import argparse
import io
import multiprocessing
import os
import random
import resource
import struct
import sys
import time
from collections import Counter
from collections.abc import Iterator
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

import numpy as np
import pydicom
from PIL import Image

from benchmarks.fuzz.instrumentation import instrument
from fedmedclip.edge_client.images.opening import UnreadableImageError, decode_image, quiet_decoders
from fedmedclip.edge_client.images.readers.archive import PARTS, archive_labels, read_archive_image
from fedmedclip.edge_client.images.readers.dicom import dicom_frames
from fedmedclip.edge_client.images.readers.nifti import nifti_frames
from fedmedclip.edge_client.images.readers.plain import plain_frames
from fedmedclip.edge_client.images.readers.refusal import RefusedFileError
from fedmedclip.edge_client.images.readers.settings import ReaderSettings

HANG_SECONDS = 10.0
MEMORY_BYTES = 1536 * 1024 * 1024
_START_SECONDS = 120.0
_LARGEST_SEED = 40_000
_LONGEST_REASON = 70
_SETTINGS = (ReaderSettings(), ReaderSettings("first", "range"), ReaderSettings("middle", (40.0, 400.0)))
_HOSTILE_NUMBERS = (0, 1, 2, 3, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFE, 0xFFFF, 0x10000, 0x7FFFFFFF,
                    0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)  # fmt: skip
_HOSTILE_TEXTS = (b"0", b"-1", b"1e400", b"nan", b"99999999", b"", b"1\\2\\3", b"\xff\xfe", b"PALETTE COLOR",
                  b"YBR_FULL_422", b"MONOCHROME1", b"SIGMOID", b"0.0000001")  # fmt: skip


def main() -> None:
    """Run until the time is over; exit with 1 when anything was found."""
    options = _options()
    options.out.mkdir(parents=True, exist_ok=True)
    seeds = seed_files()
    ends = time.monotonic() + options.seconds
    counts: Counter[str] = Counter()
    generation = 0
    while (left := ends - time.monotonic()) > 0:
        run = _Worker(options, seeds, left, generation)
        if (finding := run.watch()) is not None:
            counts[finding] += 1
            run.keep_input(options.out, finding)
        counts["inputs"] += run.inputs
        generation += 1
        print(f"{options.seconds - max(0, ends - time.monotonic()):.0f} s: {dict(counts)}", flush=True)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"{used.ru_utime + used.ru_stime:.0f} s of CPU, {dict(counts)}")
    sys.exit(any(name != "inputs" for name in counts))


def check(content: bytes, suffix: str) -> None:
    """Read a hostile file in every way; any exception but a refusal is a finding."""
    for settings in _SETTINGS:
        try:
            image = decode_image(content, Path(f"hostile{suffix}"), settings)
        except UnreadableImageError as error:
            _check_reason(error.reason)
        else:
            assert image.mode == "RGB", image.mode
            assert min(image.size) > 0
    for count in (dicom_frames, plain_frames, nifti_frames):
        count(io.BytesIO(content))


def check_archive(content: bytes, file: Path) -> None:
    """The same for an `.npz` archive, which is read from its path."""
    file.write_bytes(content)
    try:
        labels = archive_labels(file)
    except RefusedFileError:
        labels = {}
    for part in labels or PARTS:
        for index in (0, 3, 1):
            try:
                read_archive_image(file, part, index)
            except RefusedFileError as refusal:
                _check_reason(refusal.reason)


def _check_reason(reason: str) -> None:
    if not 0 < len(reason) <= _LONGEST_REASON or not reason.isascii():
        raise ValueError(f"not a reason: {reason!r}")


def seed_files() -> list[tuple[str, bytes]]:
    """Return (suffix, content) of a small valid file of each kind, in the order of their names."""
    folder = Path(pydicom.__file__).parent / "data" / "test_files"
    found = [
        (".dcm", path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix in (".dcm", "") and path.stat().st_size <= _LARGEST_SEED
    ]
    return found + list(_made_seeds())


def mutated(content: bytes, other: bytes, draw: random.Random) -> bytes:
    """Damage a file in one to four places."""
    damaged = bytearray(content)
    for _ in range(draw.choice((1, 1, 2, 4))):
        if not damaged:
            break
        at = draw.randrange(len(damaged))
        match draw.randrange(9):
            case 0:
                damaged[at] ^= 1 << draw.randrange(8)
            case 1:
                damaged[at : at + draw.choice((1, 2, 4))] = draw.randbytes(draw.choice((1, 2, 4)))
            case 2 | 3:
                number, order = draw.choice(_HOSTILE_NUMBERS), draw.choice("<>")
                damaged[at : at + 4] = struct.pack(f"{order}I", number)[: draw.choice((1, 2, 4))].ljust(
                    4, b"\0"
                )
            case 4:
                del damaged[at : at + draw.randrange(1, 64)]
            case 5:
                damaged = damaged[: at + 1] if draw.random() < 0.3 else damaged
            case 6:
                start = draw.randrange(len(other) or 1)
                damaged[at:at] = other[start : start + draw.randrange(1, 256)]
            case 7:
                # Headers are where the damage counts, so most of it goes there.
                near = draw.randrange(min(len(damaged), 400))
                damaged[near] = draw.randrange(256)
            case _:
                _spoil_element(damaged, draw)
    return bytes(damaged)


def _spoil_element(damaged: bytearray, draw: random.Random) -> None:
    """Give an element of DICOM's image group (0028) another value of the same length."""
    places = [
        at for at in range(len(damaged) - 12) if damaged[at : at + 2] == b"\x28\0" and damaged[at + 3] < 64
    ]
    if not places:
        return
    at = draw.choice(places) + 8
    length = int.from_bytes(damaged[at - 2 : at], "little") % 64
    if draw.random() < 0.5:
        damaged[at : at + 2] = struct.pack("<H", draw.choice(_HOSTILE_NUMBERS) & 0xFFFF)
    else:
        damaged[at : at + length] = draw.choice(_HOSTILE_TEXTS)[:length].ljust(length, b" ")


def _made_seeds() -> Iterator[tuple[str, bytes]]:
    colours = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    image = Image.fromarray(colours)
    deep = Image.fromarray(np.arange(24 * 32, dtype=np.uint16).reshape(24, 32) * 80)
    for name, picture, options in (
        ("a.jpg", image, {}), ("b.jpg", image.convert("CMYK"), {}), ("c.jpg", image, {"progressive": True}),
        ("a.png", image, {}), ("b.png", image.convert("P"), {"transparency": 3}), ("c.png", deep, {}),
        ("a.tif", image, {}), ("b.tif", deep, {"compression": "tiff_lzw"}), ("c.tif", image.convert("F"), {}),
        ("d.tif", image, {"compression": "jpeg"}), ("e.tif", image.convert("1"), {"compression": "group4"}),
        ("f.tif", image, {"save_all": True, "append_images": [deep]}),
        ("a.webp", image, {}), ("b.webp", image, {"lossless": True}), ("a.bmp", image.convert("P"), {}),
        ("a.gif", image.convert("P"), {}), ("b.gif", image, {"save_all": True, "append_images": [deep]}),
        ("a.ppm", image, {}), ("a.pgm", deep, {}), ("a.jp2", image, {}), ("b.jp2", deep, {"no_jp2": True}),
        ("d.png", image, {"icc_profile": bytes(99), "exif": b"Exif\0\0II*\0\b\0\0\0\0\0"}),
    ):  # fmt: skip
        content = io.BytesIO()
        picture.save(content, Image.registered_extensions()[f".{name.split('.')[1]}"], **options)
        yield f".{name.split('.')[1]}", content.getvalue()
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, 3, 12, 10, 4, 1, 1, 1, 1)
    struct.pack_into("<2h", header, 70, 4, 16)
    struct.pack_into("<3f", header, 108, 352.0, 1.0, 0.0)
    header[344:348] = b"n+1\0"
    yield ".nii", bytes(header) + np.arange(480, dtype="<i2").tobytes()
    archive = io.BytesIO()
    np.savez_compressed(
        archive, train_images=colours[None].repeat(4, 0), train_labels=np.zeros((4, 1), np.uint8)
    )
    yield ".npz", archive.getvalue()


class _Worker:
    """A process that reads hostile files, and what the parent sees of it."""

    def __init__(
        self, options: argparse.Namespace, seeds: list[tuple[str, bytes]], seconds: float, generation: int
    ) -> None:
        self._input = options.out / f".current-{options.seed}"
        self._input.write_bytes(b"")
        self._count: Synchronized[int] = multiprocessing.Value("q", 0)
        target = _run_atheris if options.engine == "atheris" else _run_mutations
        self._process = multiprocessing.get_context("fork").Process(
            target=target, args=(seeds, self._input, self._count, seconds, f"{options.seed}:{generation}")
        )
        self._process.start()

    @property
    def inputs(self) -> int:
        """How many inputs it took."""
        return self._count.value

    def watch(self) -> str | None:
        """Wait for the end; return what went wrong, if anything did."""
        seen, since = -1, 0.0
        while self._process.is_alive():
            self._process.join(0.5)
            used = self._cpu_seconds()
            if self.inputs != seen:
                seen, since = self.inputs, used
            elif used - since > (HANG_SECONDS if seen else _START_SECONDS):
                self._process.kill()
                self._process.join()
                return "hang"
        code = self._process.exitcode
        return {0: None, 3: "memory", 4: "exception"}.get(code or 0, f"crash-{code}")

    def _cpu_seconds(self) -> float:
        """What the worker has computed: the clock on the wall would take a busy machine for a hang."""
        try:
            fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def keep_input(self, folder: Path, finding: str) -> None:
        """Save the input that it was reading."""
        suffix, _, content = self._input.read_bytes().partition(b"\n")
        name = f"{finding}-{abs(hash(content)):x}{suffix.decode()}"
        (folder / name).write_bytes(content)
        print(f"found {name}", flush=True)


def _run_mutations(
    seeds: list[tuple[str, bytes]], current: Path, count: "Synchronized[int]", seconds: float, seed: str
) -> None:
    draw = random.Random(seed)
    ends = time.monotonic() + seconds
    with quiet_decoders():
        while time.monotonic() < ends:
            suffix, content = draw.choice(seeds)
            _take(mutated(content, draw.choice(seeds)[1], draw), suffix, current, count)
    sys.exit(0)


def _run_atheris(
    seeds: list[tuple[str, bytes]], current: Path, count: "Synchronized[int]", seconds: float, seed: str
) -> None:
    import atheris

    suffixes = sorted({suffix for suffix, _ in seeds})
    corpus = current.with_name(f"{current.name}-corpus")
    corpus.mkdir(exist_ok=True)
    for number, (suffix, content) in enumerate(seeds):
        (corpus / f"seed-{number}").write_bytes(bytes([suffixes.index(suffix)]) + content)

    def take(content: bytes) -> None:
        if content:
            _take(content[1:], suffixes[content[0] % len(suffixes)], current, count)

    for module in list(sys.modules.values()):
        if module.__name__.startswith(("fedmedclip.edge_client.", "pydicom.")):
            instrument(module, atheris.instrument_func)
    arguments = ["fuzz", str(corpus), f"-max_total_time={int(seconds)}", "-max_len=45000", "-timeout=60",
                 "-rss_limit_mb=4096", f"-seed={abs(hash(seed)) % (1 << 31)}", "-verbosity=0"]  # fmt: skip
    atheris.Setup(arguments, take)
    with quiet_decoders():
        atheris.Fuzz()


def _take(content: bytes, suffix: str, current: Path, count: "Synchronized[int]") -> None:
    current.write_bytes(suffix.encode() + b"\n" + content)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        if suffix == ".npz":
            check_archive(content, current.with_suffix(".npz"))
        else:
            check(content, suffix)
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", flush=True)
        import traceback

        traceback.print_exc()
        sys.stdout.flush()
        _end(4)
    if (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 > MEMORY_BYTES:
        _end(3)
    count.value += 1


def _end(code: int) -> None:
    # Not sys.exit: atheris would call that an exception of its own.
    os._exit(code)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--engine", choices=("mutations", "atheris"), default="mutations")
    parser.add_argument("--out", type=Path, default=Path("fuzz-findings"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
