"""The file that keeps finished runs, so that a benchmark can be resumed and extended."""

import os
from pathlib import Path

import msgspec

from protocol.errors import InvalidInputError
from simulation.bandwidth.runs import Experiment, Run


class RunFile:
    """Finished runs as JSON lines, behind a first line with what they have in common.

    Raises InvalidInputError when the file holds another benchmark's runs or is damaged. A last line that a
    kill cut short is dropped.
    """

    def __init__(self, path: Path, experiment: Experiment) -> None:
        self._path = path
        description = experiment.description()
        if not path.exists():
            path.write_bytes(msgspec.json.encode(description) + b"\n")
        content = path.read_bytes()
        first, *lines = content[: content.rfind(b"\n") + 1].splitlines() or [b"{}"]
        try:
            known = msgspec.json.decode(first)
            changed = [name for name in description if known.get(name) != description[name]]
            if changed:
                raise InvalidInputError(
                    f"{path} holds runs with another {', '.join(changed)}; give another --out"
                )
            self.runs = {
                (run.codec, run.seed): run for run in (msgspec.json.decode(line, type=Run) for line in lines)
            }
        except (msgspec.MsgspecError, AttributeError) as error:
            raise InvalidInputError(f"{path} is damaged ({error}); delete it to begin again") from error
        os.truncate(path, content.rfind(b"\n") + 1)

    def add(self, run: Run) -> None:
        """Keep a finished run."""
        self.runs[run.codec, run.seed] = run
        with self._path.open("ab") as file:
            file.write(msgspec.json.encode(run) + b"\n")
