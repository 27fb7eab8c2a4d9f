"""`answers.csv`: a row for each answer, appended exactly once, whatever is killed and whoever opens the file.

Before a row is appended, it is written down durably where it will stand; when the next one begins, that it
stands. So after a kill there is one row in doubt: it is there, or cut off and cut away, or not there.

The file is everybody's: people open, save, move and delete it. A file that is gone begins anew. Other columns
than ours, or another separator, are left alone, and the rows go on in `answers-2.csv`. Rows that somebody
saved over, with an older copy of the file, are missed at the next append, and said.
"""

import csv
import io
import logging
import os
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from fedmedclip.edge_client.serving.answer import Answer, Result
from fedmedclip.edge_client.serving.folder.appended_file import (
    append_whole,
    ends_a_line,
    first_line,
    ids_in,
    opened,
)
from fedmedclip.edge_client.serving.outlet import DeliveryError
from fedmedclip.protocol.csv_cells import path_cell, text_cell
from fedmedclip.protocol.database import Database
from fedmedclip.protocol.errors import StorageError
from fedmedclip.protocol.visible import visible

log = logging.getLogger("fedmedclip.serving.folder")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS rows (
    id TEXT PRIMARY KEY,
    file TEXT NOT NULL,
    start INTEGER NOT NULL,
    stands INTEGER NOT NULL,
    at REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS files (
    file TEXT PRIMARY KEY,
    inode TEXT NOT NULL,
    size INTEGER NOT NULL
) WITHOUT ROWID
"""
NAME = "answers.csv"
REMEMBERED_DAYS = 60.0
_MOST_FILES = 100
_FORGET_EVERY = 1000


class AnswersCsv:
    """Appends to `answers.csv` in `folder`; `ledger` is the file that knows which rows stand. Of one thread.

    `class_names` give the columns of probabilities. Raises StorageError when the ledger cannot be used.
    """

    def __init__(self, folder: Path, class_names: Sequence[str], ledger: Path) -> None:
        self._folder = folder
        self._class_names = tuple(class_names)
        self._ledger_file = ledger
        self._ledger: Database | None = None
        self._header = _line(
            [
                *("path", "frame", "outcome", "label"),
                *(f"probability_{visible(name)}" for name in class_names),
                *("prediction_set", "distance", "ensemble_weight", "milliseconds", "reason", "time", "id"),
            ]
        )
        self._appended = 0

    def append(self, path: str, answer: Answer) -> None:
        """Append the rows of an answer to the image at `path`, unless they stand. Raises DeliveryError."""
        rows = b"".join(self._row(path, answer, result) for result in answer.results)
        try:
            found = self._database.row("SELECT file, start, stands FROM rows WHERE id = ?", (answer.id,))
            if found is not None and found[2]:
                return
            if found is not None and self._stands(answer.id, rows, *found[:2]):
                self._mark(answer.id)
                return
            self._append(rows, answer.id)
        except OSError as error:
            where = visible(self._folder / NAME)
            raise DeliveryError(
                f"cannot add a row to {where} ({error.strerror}); is it open elsewhere?"
            ) from error
        except StorageError as error:
            raise DeliveryError(str(error)) from error

    def close(self) -> None:
        """Release the ledger."""
        if self._ledger is not None:
            self._ledger.close()
            self._ledger = None

    @property
    def _database(self) -> Database:
        # Opened by the thread that uses it, to which SQLite's connections belong.
        if self._ledger is None:
            self._ledger = Database(self._ledger_file, _SCHEMA)
        return self._ledger

    def _row(self, path: str, answer: Answer, result: Result) -> bytes:
        probabilities = result.probabilities or {}
        chosen = result.prediction_set
        return _line(
            [
                path_cell(visible(path)),
                result.frame,
                result.outcome,
                None if result.label is None else text_cell(visible(result.label)),
                *(probabilities.get(name) for name in self._class_names),
                None if chosen is None else text_cell(visible(" | ".join(chosen))),
                result.distance,
                result.ensemble_weight,
                result.milliseconds,
                None if result.reason is None else text_cell(visible(result.reason)),
                datetime.fromtimestamp(answer.answered_at, UTC).isoformat(timespec="seconds"),
                answer.id,
            ]
        )

    def _stands(self, id: str, rows: bytes, name: str, start: int) -> bool:
        """Whether rows in doubt stand; what is cut off of them is cut away."""
        try:
            with opened(self._folder / name) as file:
                file.seek(start)
                there = file.read(len(rows) + 1)
                if there[: len(rows)] == rows:
                    return True
                if there and rows.startswith(there):
                    file.truncate(start)
                    return False
                # Somebody has changed the file meanwhile.
                return id in ids_in(file)
        except FileNotFoundError:
            log.warning(
                "%s was moved away while a row was written; if the row of %s is not in it, its .json has the "
                "answer", visible(self._folder / name), id,
            )  # fmt: skip
            return True

    def _append(self, rows: bytes, id: str) -> None:
        name, file = self._file()
        with file:
            start = file.seek(0, os.SEEK_END)
            self._look_for_missing_rows(name, file, start)
            added = rows if ends_a_line(file, start) else b"\n" + rows
            start = file.seek(0, os.SEEK_END) + len(added) - len(rows)
            with self._database.transaction() as database:
                database.execute("UPDATE rows SET stands = 1 WHERE stands = 0")
                database.execute(
                    "INSERT OR REPLACE INTO rows VALUES (?, ?, ?, 0, ?)", (id, name, start, time.time())
                )
            append_whole(file, added)
            status = os.fstat(file.fileno())
        self._mark(id, (name, str(status.st_ino), status.st_size))

    def _mark(self, id: str, file: tuple[str, str, int] | None = None) -> None:
        with self._database.transaction() as database:
            database.execute("UPDATE rows SET stands = 1 WHERE id = ?", (id,))
            if file is not None:
                database.execute("INSERT OR REPLACE INTO files VALUES (?, ?, ?)", file)
            self._appended += 1
            if self._appended % _FORGET_EVERY == 0:
                before = time.time() - REMEMBERED_DAYS * 86_400
                database.execute("DELETE FROM rows WHERE stands = 1 AND at < ?", (before,))

    def _file(self) -> tuple[str, io.FileIO]:
        """Return the first file of ours that has our columns, opened; it is made where there is none."""
        for number in range(1, _MOST_FILES + 1):
            name = NAME if number == 1 else f"answers-{number}.csv"
            path = self._folder / name
            try:
                file = opened(path)
            except FileNotFoundError:
                return name, self._begun(name)
            header = first_line(file)
            if self._header.startswith(header) and len(header) < len(self._header):
                # Nothing else is in it: the header itself was cut off.
                file.truncate(0)
                append_whole(file, self._header)
                return name, file
            if header.lstrip(b"\xef\xbb\xbf").rstrip(b"\r\n") == self._header.rstrip(b"\n"):
                return name, file
            file.close()
        raise DeliveryError(
            f"{_MOST_FILES} files such as {visible(self._folder / NAME)} have other columns; move them away"
        )

    def _begun(self, name: str) -> io.FileIO:
        if self._database.row("SELECT 1 FROM files WHERE file = ?", (name,)) is not None:
            log.info("%s was moved or deleted: a new one begins", visible(self._folder / name))
            with self._database.transaction() as database:
                database.execute("UPDATE rows SET file = '' WHERE file = ?", (name,))
                database.execute("DELETE FROM files WHERE file = ?", (name,))
        file = opened(self._folder / name, os.O_CREAT | os.O_EXCL)
        try:
            append_whole(file, self._header)
        except BaseException:
            file.close()
            raise
        return file

    def _look_for_missing_rows(self, name: str, file: io.FileIO, size: int) -> None:
        """Say when rows that stood in the file are not in it: somebody saved an older copy over it."""
        known = self._database.row("SELECT inode, size FROM files WHERE file = ?", (name,))
        if known is None or known == (str(os.fstat(file.fileno()).st_ino), size):
            return
        there = ids_in(file)
        stood = {
            id for (id,) in self._database.rows("SELECT id FROM rows WHERE file = ? AND stands", (name,))
        }
        if missing := sorted(stood - there):
            log.warning(
                "%s was changed by somebody, and %d rows that stood in it are gone; the .json files have "
                "their answers (the first: %s)", visible(self._folder / name), len(missing), missing[0],
            )  # fmt: skip
            with self._database.transaction() as database:
                database.executemany("UPDATE rows SET file = '' WHERE id = ?", [(id,) for id in missing])


def _line(cells: Sequence[object]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue().encode()
