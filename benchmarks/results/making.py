"""One result is made: its commands run one after the other, and what they wrote becomes record and page."""

import shutil
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from benchmarks.results import surroundings
from benchmarks.results.entries import EXPORT, EXPORT_MODULES, Entry
from benchmarks.results.inputs import ROOT, code_digest, data_digest, text_digest
from benchmarks.results.pages import astray, mark_whole_page
from benchmarks.results.records import Inputs, Record, write_record
from benchmarks.results.steps import FailedError, Places, run_step, seconds_taken
from fedmedclip.protocol.bundle.bundle import open_bundle
from fedmedclip.protocol.errors import InvalidInputError


class Workshop(msgspec.Struct, frozen=True):
    """Where results are made: data, model, the folder of work, and the pages that are filled in.

    `quick` says that only the plumbing is tried, `dirty` that the work tree may have changes. `commit` is
    what a result is made of; None: HEAD, when it is begun.
    """

    data: Path
    model: Path
    work: Path
    pages: Path
    commit: str | None = None
    quick: bool = False
    network: bool = False
    dirty: bool = False

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


def make(workshop: Workshop, entry: Entry, *, again: bool = False) -> Record:
    """Make a result, write its record, its files and its page, and return the record.

    Goes on where a killed attempt with the same inputs was; with `again` it begins anew. Raises FailedError,
    one line with the place of the log, when a command fails, when what it wrote is not as expected, or when
    the code changed meanwhile.
    """
    commit = workshop.commit or surroundings.commit()
    if commit.endswith("+") and not (workshop.dirty or workshop.quick):
        raise FailedError(
            f"{entry.name}: the work tree has changes that no commit has "
            f"({', '.join(surroundings.changes()[:3])}); commit them, or give --dirty: the tables will "
            "say so, and be made again later"
        )
    inputs = workshop.inputs(entry)
    out = workshop.work / f"{entry.name}-{text_digest(repr(inputs))}"
    if again:
        shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)
    bundle = export(workshop) if entry.uses_bundle else None
    places = {"DATA": workshop.data, "MODEL": workshop.model, "BUNDLE": bundle, "OUT": out}
    for step, command in enumerate(inputs.commands, start=1):
        run_step(entry.name, step, command, places, out, workshop.work)
    if workshop.inputs(entry) != inputs:
        raise FailedError(f"{entry.name}: code or data changed while it ran; give the same command again")
    try:
        tables = entry.tables(out)
    except (OSError, LookupError, ValueError, msgspec.MsgspecError) as error:
        raise FailedError(f"{entry.name}: what it wrote into {out} cannot be read: {error!r}") from error
    seconds, processor_seconds = seconds_taken(out)
    record = Record(
        entry.name,
        entry.page,
        commit,
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
    run_step("bundle", 1, EXPORT, places, folder, workshop.work)
    return bundle


def _publish(workshop: Workshop, entry: Entry, record: Record, out: Path, places: Places) -> None:
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
            if target.suffix in _TEXTS:
                target.write_text(_in_words(target, places), encoding="utf-8")
    if entry.whole_page is not None:
        page = mark_whole_page(_in_words(out / entry.whole_page, places), entry.name, record.line())
        (workshop.pages / entry.page).write_text(page, encoding="utf-8")


_TEXTS = frozenset({".json", ".md", ".svg"})


def _in_words(file: Path, places: Places) -> str:
    """Return a file's text with DATA, BUNDLE and so on for where these lie on this machine."""
    text = file.read_text(encoding="utf-8")
    # Longest first: a bundle may lie in the folder of work.
    for name, place in sorted(places.items(), key=lambda pair: -len(str(pair[1]))):
        if place is not None:
            text = text.replace(str(place), name)
    return text


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
