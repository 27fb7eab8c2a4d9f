"""One result is made: its commands run one after the other, and what they wrote becomes record and page."""

import os
import re
import resource
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from benchmarks.results import surroundings
from benchmarks.results.entries import EXPORT, EXPORT_MODULES, Entry
from benchmarks.results.inputs import ROOT, code_digest, data_digest, text_digest
from benchmarks.results.pages import astray, mark_whole_page
from benchmarks.results.records import Inputs, Record, write_record
from fedmedclip.protocol.bundle.bundle import open_bundle
from fedmedclip.protocol.errors import FedMedClipError, InvalidInputError

_PLACEHOLDERS = re.compile(r"\b(DATA|MODEL|BUNDLE|OUT)\b")
_LINES_OF_LOG = 15


class FailedError(FedMedClipError):
    """A result could not be made; what was finished of it lies in its folder."""


class Workshop(msgspec.Struct, frozen=True):
    """Where results are made: data, model, the folder of work, and the pages that are filled in.

    `quick` says that only the plumbing is tried. `commit` is HEAD when the work began.
    """

    data: Path
    model: Path
    work: Path
    pages: Path
    commit: str
    quick: bool = False
    network: bool = False

    def commands(self, entry: Entry) -> tuple[str, ...]:
        """Return the commands with placeholders; of a try those of a try."""
        return entry.quick_commands() if self.quick else entry.commands

    def inputs(self, entry: Entry) -> Inputs:
        """Return what decides whether a result is up to date."""
        modules = (*entry.modules, *(EXPORT_MODULES if entry.uses_bundle else ()))
        return Inputs(
            code_digest(modules),
            self.commands(entry),
            _digest_of(self.data) if entry.uses_data else "",
            _digest_of(self.model) if entry.uses_model else "",
        )

    def why_not(self, entry: Entry) -> str | None:
        """Return why an entry cannot be made here, None where it can."""
        if self.quick and entry.quick is None:
            return "has no quick form"
        found = (surroundings.why_not(need, self.data, self.model, self.network) for need in entry.needs)
        return "; ".join(filter(None, found)) or None

    def state(self, entry: Entry, record: Record | None) -> str:
        """Return `up to date`, or why an entry has to be made."""
        if record is None:
            return "never made"
        if not record.is_of_a_commit:
            return "made of what no commit has"
        changed = record.inputs.difference(self.inputs(entry))
        return f"{changed} changed since {record.commit}" if changed else "up to date"


def make(workshop: Workshop, entry: Entry) -> Record:
    """Make a result, write its record, its files and its page, and return the record.

    Goes on where a killed attempt with the same inputs was. Raises FailedError, one line with the place of
    the log, when a command fails, when what it wrote is not as expected, or when the code changed meanwhile.
    """
    inputs = workshop.inputs(entry)
    out = workshop.work / f"{entry.name}-{text_digest(repr(inputs))}"
    out.mkdir(parents=True, exist_ok=True)
    bundle = export(workshop) if entry.uses_bundle else None
    places = {"DATA": workshop.data, "MODEL": workshop.model, "BUNDLE": bundle, "OUT": out}
    for step, command in enumerate(inputs.commands, start=1):
        _run(entry.name, step, command, places, out, workshop.work)
    if workshop.inputs(entry) != inputs:
        raise FailedError(f"{entry.name}: code or data changed while it ran; give the same command again")
    try:
        tables = entry.tables(out)
    except (OSError, LookupError, ValueError, msgspec.MsgspecError) as error:
        raise FailedError(f"{entry.name}: what it wrote into {out} cannot be read: {error!r}") from error
    seconds, processor_seconds = _seconds(out)
    record = Record(
        entry.name,
        entry.page,
        workshop.commit,
        f"{datetime.now(UTC):%Y-%m-%d}",
        inputs,
        round(seconds, 1),
        round(processor_seconds, 1),
        surroundings.machine(),
        surroundings.versions(),
        tables,
        bundle="" if bundle is None else open_bundle(bundle).digest.hex()[:12],
        data_made="" if entry.uses_data else _data_made(out),
    )
    _publish(workshop, entry, record, out, places)
    write_record(workshop.pages, record)
    lost = [] if workshop.quick else _lost_tables(workshop.pages, record)
    if lost:
        raise FailedError(
            f"{entry.name}: pages ask for {', '.join(lost)}, which its output no longer has; "
            f"there are: {', '.join(tables)}"
        )
    return record


def export(workshop: Workshop) -> Path:
    """Return the bundle that this commit exports from model and classes; what is there already is used."""
    identity = text_digest(code_digest(EXPORT_MODULES), _digest_of(workshop.model), _digest_of(workshop.data))
    folder = workshop.work / f"bundle-{identity}"
    folder.mkdir(parents=True, exist_ok=True)
    bundle = folder / "bundle"
    places = {"DATA": workshop.data, "MODEL": workshop.model, "BUNDLE": bundle}
    _run("bundle", 1, EXPORT, places, folder, workshop.work)
    return bundle


def _run(
    name: str, step: int, command: str, places: Mapping[str, Path | None], out: Path, work: Path
) -> None:
    """Run one command; what is printed is kept as `step-N.txt`, errors in `step-N.log`."""
    printed, log = out / f"step-{step}.txt", out / f"step-{step}.log"
    if printed.exists():
        return
    started, processor = time.monotonic(), _processor_seconds()
    print(f"{name}: {command}", flush=True)
    words, environment = _words(command, places)
    partial = printed.with_suffix(".partial")
    try:
        with partial.open("wb") as output, log.open("ab") as errors:
            surrounding = _environment(work) | environment
            done = subprocess.run(words, cwd=ROOT, env=surrounding, stdout=output, stderr=errors, check=False)
    finally:
        _add_seconds(out, time.monotonic() - started, _processor_seconds() - processor)
    if done.returncode != 0:
        last = [*_last_lines(partial), *_last_lines(log)]
        print("\n".join(last), file=sys.stderr)
        why = f"; {last[-1]}" if last else ""
        raise FailedError(f"{name}: exit code {done.returncode} of: {command}{why} (more in {log})")
    partial.replace(printed)


def _words(command: str, places: Mapping[str, Path | None]) -> tuple[list[str], dict[str, str]]:
    """Return the words of a command with places filled in, and the settings that stand before it."""
    words = [_PLACEHOLDERS.sub(lambda found: str(places[found[1]]), word) for word in shlex.split(command)]
    environment = {}
    while "=" in words[0]:
        name, _, value = words.pop(0).partition("=")
        environment[name] = value
    if words[0] == "python":
        words[0] = sys.executable
    elif words[0] == "fedmedclip":
        words[:1] = [sys.executable, "-m", "fedmedclip"]
    return words, environment


def _environment(work: Path) -> dict[str, str]:
    """Return an environment in which a bundle is signed with a key of this work's own, as nobody else's."""
    environment = dict(os.environ)
    environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    return environment | {
        "XDG_CONFIG_HOME": str((work / "keys").resolve()),
        "NO_COLOR": "1",
        "COLUMNS": "200",
    }


def _publish(
    workshop: Workshop, entry: Entry, record: Record, out: Path, places: Mapping[str, Path | None]
) -> None:
    """Copy files, and the page that the command wrote as a whole, into the pages."""
    for name, pattern in entry.files.items():
        found = sorted(out.glob(pattern))
        if not found:
            raise FailedError(f"{entry.name}: it wrote no {pattern} into {out}")
        target = workshop.pages / name
        if found[0].is_dir():
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(found[0], target)
        else:
            shutil.copyfile(found[0], target)
    if entry.whole_page is not None:
        text = (out / entry.whole_page).read_text(encoding="utf-8")
        # Longest first: a bundle may lie in the folder of work.
        for name, place in sorted(places.items(), key=lambda pair: -len(str(pair[1]))):
            if place is not None:
                text = text.replace(str(place), name)
        page = mark_whole_page(text, entry.name, record.line())
        (workshop.pages / entry.page).write_text(page, encoding="utf-8")


def _data_made(out: Path) -> str:
    """Return a digest of the images or features that the commands made themselves, empty without any."""
    patterns = ("phantoms", "*/images", "features.npz")
    places = [place for pattern in patterns for place in sorted(out.glob(pattern))]
    digests = [data_digest(place) for place in places]
    return text_digest(*digests) if len(digests) > 1 else "".join(digests)


def _lost_tables(pages: Path, record: Record) -> list[str]:
    texts = [file.read_text(encoding="utf-8") for file in (*sorted(pages.glob("*.md")), ROOT / "README.md")]
    return sorted({name for text in texts for name in astray(text, {record.entry: record})})


def _digest_of(path: Path) -> str:
    if path not in _DIGESTS:
        if not path.exists():
            raise InvalidInputError(f"there is no {path}; give another with --data or --model")
        _DIGESTS[path] = data_digest(path)
    return _DIGESTS[path]


# Of data and model, which nobody changes while results are made.
_DIGESTS: dict[Path, str] = {}


def _add_seconds(out: Path, seconds: float, processor_seconds: float) -> None:
    before, processor_before = _seconds(out)
    (out / "seconds").write_text(f"{before + seconds} {processor_before + processor_seconds}\n")


def _seconds(out: Path) -> tuple[float, float]:
    """Return what the commands took over all attempts, by the clock and of processor time."""
    file = out / "seconds"
    if not file.exists():
        return 0.0, 0.0
    seconds, processor_seconds = map(float, file.read_text().split())
    return seconds, processor_seconds


def _processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _last_lines(path: Path) -> Sequence[str]:
    if not path.exists():
        return []
    return path.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-_LINES_OF_LOG:]
