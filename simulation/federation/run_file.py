"""The file that keeps finished runs, so that a benchmark can be resumed and extended."""

import os
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Generic, TypeVar

import msgspec

from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.malformed import MALFORMED
from fedmedclip.protocol.new_files import write_new_file

Run = TypeVar("Run", bound=msgspec.Struct)
Key = TypeVar("Key", bound=Hashable)


class RunFile(Generic[Run, Key]):
    """Finished runs as JSON lines, behind a first line with what they have in common.

    `runs` has them by `key_of`. Raises InvalidInputError when the file holds another benchmark's runs or is
    damaged. A last line that a kill cut short is dropped.
    """

    def __init__(
        self,
        path: Path,
        description: Mapping[str, object],
        run_type: type[Run],
        key_of: Callable[[Run], Key],
    ) -> None:
        self._path = path
        self._key_of = key_of
        if not path.exists():
            write_new_file(path, msgspec.json.encode(description) + b"\n")
        content = path.read_bytes()
        first, *lines = content[: content.rfind(b"\n") + 1].splitlines() or [b"{}"]
        try:
            known = msgspec.json.decode(first)
            changed = [name for name in description if known.get(name) != description[name]]
            if changed:
                raise InvalidInputError(
                    f"{path} holds runs with another {', '.join(changed)}; give another --out"
                )
            runs = [msgspec.json.decode(line, type=run_type) for line in lines]
        except (*MALFORMED, AttributeError) as error:
            raise InvalidInputError(f"{path} is damaged ({error}); delete it to begin again") from error
        self.runs: dict[Key, Run] = {key_of(run): run for run in runs}
        os.truncate(path, content.rfind(b"\n") + 1)

    def add(self, run: Run) -> None:
        """Keep a finished run."""
        self.runs[self._key_of(run)] = run
        with self._path.open("ab") as file:
            file.write(msgspec.json.encode(run) + b"\n")
