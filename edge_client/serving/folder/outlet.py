"""Answers beside the images, or in a folder of their own: `NAME.json` each, and a row of one CSV."""

import errno
import hashlib
import os
import stat
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from fedmedclip.edge_client.serving.answer import Answer
from fedmedclip.edge_client.serving.arrival import Arrival
from fedmedclip.edge_client.serving.folder.answers_csv import AnswersCsv
from fedmedclip.edge_client.serving.folder.intake import path_of
from fedmedclip.edge_client.serving.folder.place import Place
from fedmedclip.edge_client.serving.outlet import DeliveryError
from fedmedclip.protocol.malformed import MALFORMED
from fedmedclip.protocol.new_files import write_new_file
from fedmedclip.protocol.visible import visible

ENDING = ".json"
_LARGEST_ANSWER = 64 << 20
_LONGEST_NAME = 255


class FolderOutlet:
    """Writes answers of the door "folder" below `place`; with `table`, rows of it as well. Of one thread."""

    name = "folder"

    def __init__(self, place: Place, table: AnswersCsv | None, *, make_folders: bool) -> None:
        self._place = place
        self._table = table
        self._make_folders = make_folders

    def prepare(
        self, arrival: Arrival, content: Path, answer: Answer, pixels: npt.NDArray[np.uint8] | None
    ) -> bytes | None:
        """Return the path of the image, relative to the folder, as the system has it."""
        return os.fsencode(path_of(arrival.context)) if arrival.door == "folder" else None

    def deliver(self, payload: bytes, answer: Answer) -> None:
        """Write the file, and the row unless it was written. Raises DeliveryError."""
        if fault := self._place.fault():
            raise DeliveryError(fault)
        relative = os.fsdecode(payload)
        try:
            self._write(relative, answer)
        finally:
            # The one may fail for ever, and the other must not wait for it.
            if self._table is not None:
                self._table.append(relative, answer)

    def _write(self, relative: str, answer: Answer) -> None:
        image = self._place.inside(relative)
        if image is None:
            raise DeliveryError(
                f"the folder of {visible(relative)} leads elsewhere by a link", permanent=True
            )
        target = image.with_name(answer_name(image.name))
        try:
            if self._make_folders:
                target.parent.mkdir(parents=True, exist_ok=True)
            if _may_be_written(target, answer):
                write_new_file(target, in_json(answer), alone=True)
        except OSError as error:
            gone = error.errno in (errno.ENOENT, errno.ENOTDIR)
            raise DeliveryError(
                f"cannot write {visible(target)} ({error.strerror})",
                permanent=gone and not self._make_folders,
            ) from error


def answer_name(image: str) -> str:
    """Return the name of the file for an image's answer, of at most 255 bytes."""
    name = os.fsencode(image)
    if len(name) + len(ENDING) <= _LONGEST_NAME:
        return image + ENDING
    # Two long names with the same beginning need two files.
    mark = f"~{hashlib.sha256(name).hexdigest()[:16]}{ENDING}"
    return os.fsdecode(name[: _LONGEST_NAME - len(mark)]) + mark


def in_json(answer: Answer) -> bytes:
    """Return an answer as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(answer), indent=2) + b"\n"


def _may_be_written(target: Path, answer: Answer) -> bool:
    """Whether the answer is news there. Raises DeliveryError for what is there and is none of ours."""
    try:
        status = target.lstat()
    except FileNotFoundError:
        return True
    line = f"{visible(target)} is there and is no answer; move it away"
    if not stat.S_ISREG(status.st_mode) or status.st_size > _LARGEST_ANSWER:
        raise DeliveryError(line)
    try:
        there = msgspec.json.decode(target.read_bytes(), type=Answer)
    except MALFORMED:
        raise DeliveryError(line) from None
    # A late delivery must not take the place of the answer to a newer image of this name.
    return there.id != answer.id and there.received_at <= answer.received_at
