"""The results that there are, as `results.toml` describes them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.results.readers import tables_in
from benchmarks.results.text_readers import Tables
from fedmedclip.protocol.errors import InvalidInputError

FILE = Path(__file__).with_name("results.toml")
EXPORT = "fedmedclip export --model local-dir:MODEL --classes DATA --precision fp32 --force --out BUNDLE"
EXPORT_MODULES = ("fedmedclip.export.cli",)


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A result; `results.toml` says what each field means. `quick` is for all commands, or one for each."""

    page: str
    commands: tuple[str, ...]
    modules: tuple[str, ...]
    seconds: float
    read: tuple[str, ...]
    quick: str | tuple[str, ...] | None = None
    needs: tuple[str, ...] = ()
    files: dict[str, str] = {}
    whole_page: str | None = None
    name: str = ""

    @property
    def uses_bundle(self) -> bool:
        """Whether the bundle has to be exported first."""
        return self._mentions("BUNDLE")

    @property
    def uses_data(self) -> bool:
        """Whether it reads the data set, or a bundle with its classes."""
        return self._mentions("DATA") or self.uses_bundle

    @property
    def uses_model(self) -> bool:
        """Whether it reads the model, or a bundle made of it."""
        return self._mentions("MODEL") or self.uses_bundle

    def quick_commands(self) -> tuple[str, ...]:
        """Return the commands of a try; none where there is none."""
        if self.quick is None:
            return ()
        added = (self.quick,) * len(self.commands) if isinstance(self.quick, str) else self.quick
        pairs = zip(self.commands, added, strict=True)
        return tuple(f"{command} {options}".rstrip() for command, options in pairs)

    def tables(self, out: Path) -> Tables:
        """Return the tables of what the commands wrote into `out`."""
        found: Tables = {}
        for words in self.read:
            found |= tables_in(out, words)
        return found

    def _mentions(self, placeholder: str) -> bool:
        return any(placeholder in command for command in self.commands)


def read_entries(file: Path = FILE) -> Mapping[str, Entry]:
    """Return the entries by name, in the file's order. Raises msgspec.ValidationError for another form."""
    raw: dict[str, dict[str, Any]] = msgspec.toml.decode(file.read_bytes())
    return {name: msgspec.convert({**fields, "name": name}, Entry) for name, fields in raw.items()}


def select(entries: Mapping[str, Entry], only: str) -> list[Entry]:
    """Return the entries that `only` names, with commas between them; all where it is empty.

    Raises InvalidInputError for a name that there is not.
    """
    names = [name.strip() for name in only.split(",") if name.strip()] or list(entries)
    if unknown := [name for name in names if name not in entries]:
        raise InvalidInputError(f"there is no result {', '.join(unknown)}; there are: {', '.join(entries)}")
    return [entries[name] for name in names]
