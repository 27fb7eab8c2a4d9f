"""The watch folder's door with a real folder: what is taken, what is left, and what comes again."""

import contextlib
import os
import socket
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest

from fedmedclip.edge_client.serving.arrival import Accepted
from fedmedclip.edge_client.serving.folder import events
from fedmedclip.edge_client.serving.folder.door import FolderDoor
from fedmedclip.edge_client.serving.folder.intake import path_of
from fedmedclip.edge_client.serving.folder.opening import folder_door
from fedmedclip.edge_client.serving.folder.settings import FolderSettings
from fedmedclip.protocol.errors import FullDiskError
from tests.edge_client.serving.folder.examples import AnsweringQueue, eventually

PNG = b"\x89PNG\r\n\x1a\n" + b"pixels" + b"\0\0\0\0IEND\xaeB`\x82"
OTHER_PNG = PNG.replace(b"pixels", b"PIXELS")
CUT_PNG = PNG[:-12] + b"\0" * 12


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[AnsweringQueue]:
    state = tmp_path / "state"
    state.mkdir()
    with AnsweringQueue.opened(state) as queue:
        yield queue


@pytest.fixture
def watched(tmp_path: Path) -> Path:
    (tmp_path / "watched").mkdir()
    return tmp_path / "watched"


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    """Stop watching at once, and not a quarter of a second later."""
    monkeypatch.setattr(events, "_STEP_MILLISECONDS", 20)


@contextlib.contextmanager
def running(queue: AnsweringQueue, watched: Path, **settings: object) -> Iterator[FolderDoor]:
    chosen = {"poll_seconds": 0.05, "settle_seconds": 0.05, **settings}
    door = folder_door(FolderSettings(path="watched", **chosen), watched, queue.queue, queue.state)
    door.start()
    try:
        yield door
    finally:
        door.stop()


def paths(queue: AnsweringQueue) -> list[str]:
    return sorted(path_of(arrival.context) for arrival in queue.arrivals)


def test_what_is_there_and_what_comes_is_taken_once_and_stays(queue, watched):
    (watched / "there.png").write_bytes(PNG)
    (watched / "sub").mkdir()
    with running(queue, watched) as door:
        assert "watched" in door.described()
        queue.wait_for(1)
        (watched / "sub" / "IM0001").write_bytes(b"\0" * 128 + b"DICM")
        queue.wait_for(2)
    with running(queue, watched):
        (watched / "later.png").write_bytes(PNG)
        queue.wait_for(3)
    assert paths(queue) == ["later.png", "sub/IM0001", "there.png"]
    assert sorted(path.name for path in watched.rglob("*")) == ["IM0001", "later.png", "sub", "there.png"]
    assert list((queue.state / "incoming").iterdir()) == []


def test_names_that_are_no_images_links_and_odd_files_are_left_alone(queue, watched, tmp_path, monkeypatch):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.png").write_bytes(PNG)
    (watched / "link.png").symlink_to(outside / "secret.png")
    (watched / "folder").symlink_to(outside)
    for name in ("a.png.part", "a.png.tmp", "~a.png", "a.png~", ".a.png", "a.png.json", "answers.csv"):
        (watched / name).write_bytes(PNG)
    (watched / "notes.txt").write_text("no image")
    os.mkfifo(watched / "pipe.png")
    (watched / "folder.png").mkdir()
    with socket.socket(socket.AF_UNIX) as unix:
        monkeypatch.chdir(watched)
        unix.bind("socket.png")
        with running(queue, watched):
            (watched / "good.png").write_bytes(PNG)
            queue.wait_for(1)
    assert paths(queue) == ["good.png"]


def test_any_name_that_the_system_takes(queue, watched):
    names = [b"caf\xe9.png", "Größe.png".encode(), b"two\nlines.png", b"-rf %41.png", b"x" * 251 + b".png"]
    for name in names:
        Path(os.fsdecode(os.path.join(os.fsencode(watched), name))).write_bytes(PNG)
    with running(queue, watched):
        queue.wait_for(len(names))
    assert sorted(os.fsencode(path) for path in paths(queue)) == sorted(names)
    assert all(arrival.name.isprintable() for arrival in queue.arrivals)


def test_other_content_is_new_and_touched_is_not(queue, watched):
    image = watched / "scan.png"
    image.write_bytes(PNG)
    with running(queue, watched):
        queue.wait_for(1)
        os.utime(image, (1, 1))
        (watched / "second.png").write_bytes(PNG)
        queue.wait_for(2)
        image.write_bytes(OTHER_PNG)
        queue.wait_for(3)
        # What was there once and is there again is the newest, and needs an answer of its own.
        image.write_bytes(PNG)
        queue.wait_for(4)
    assert queue.contents["scan.png"] == [PNG, OTHER_PNG, PNG]


def test_a_file_that_is_written_is_not_read_before_it_is_whole(queue, watched):
    with running(queue, watched):
        with (watched / "growing.png").open("wb", buffering=0) as file:
            for number, piece in enumerate((PNG[:4], PNG[4:9], PNG[9:])):
                file.write(piece)
                if number < 2:
                    (watched / f"{number}.png").write_bytes(PNG)
                    queue.wait_for(number + 1)
        eventually(lambda: "growing.png" in queue.contents)
    assert queue.contents["growing.png"] == [PNG]


def test_a_file_of_its_full_size_that_lacks_its_end_is_waited_for_but_not_for_ever(queue, watched):
    (watched / "filled.png").write_bytes(CUT_PNG)
    (watched / "cut.png").write_bytes(CUT_PNG)
    with running(queue, watched):
        (watched / "good.png").write_bytes(PNG)
        queue.wait_for(1)
        with (watched / "filled.png").open("r+b") as file:
            file.write(PNG)
        eventually(lambda: len(queue.arrivals) == 3)
    assert queue.contents["filled.png"] == [PNG]
    assert queue.contents["cut.png"] == [CUT_PNG]


def test_a_folder_that_goes_away_and_comes_back(queue, watched, caplog):
    (watched / "first.png").write_bytes(PNG)
    caplog.set_level("INFO")
    with running(queue, watched):
        queue.wait_for(1)
        away = watched.with_name("away")
        watched.rename(away)
        eventually(lambda: "is gone" in caplog.text)
        (away / "second.png").write_bytes(PNG)
        away.rename(watched)
        queue.wait_for(2)
    assert caplog.text.count("is gone") == 1
    assert caplog.text.count("is back") == 1


def test_a_full_disk_is_waited_for_and_said_once(queue, watched, caplog, monkeypatch):
    caplog.set_level("INFO")
    full: Future[Accepted] = Future()
    full.set_exception(FullDiskError("the disk is full"))
    (watched / "scan.png").write_bytes(PNG)
    with monkeypatch.context() as patch:
        patch.setattr(queue.queue, "accept", lambda arrival: full)
        with running(queue, watched):
            eventually(lambda: "wait: the disk is full" in caplog.text)
            patch.undo()
            queue.wait_for(1)
    assert caplog.text.count("the disk is full") == 1
    assert list((queue.state / "incoming").iterdir()) == []


def test_too_many_files_are_said(queue, watched, caplog):
    for number in range(3):
        (watched / f"{number}.png").write_bytes(PNG)
    with running(queue, watched, most_files=2):
        queue.wait_for(2)
        eventually(lambda: "more than 2 files" in caplog.text)


def test_a_file_that_cannot_be_read_blocks_nobody(queue, watched, caplog, monkeypatch):
    from fedmedclip.edge_client.serving.folder import intake

    opened = intake._opened

    def refusing(path: Path):
        if path.name == "locked.png" and not (watched / "unlocked").exists():
            raise PermissionError(13, "Permission denied")
        return opened(path)

    monkeypatch.setattr(intake, "_opened", refusing)
    (watched / "locked.png").write_bytes(PNG)
    (watched / "other.png").write_bytes(PNG)
    with running(queue, watched):
        queue.wait_for(1)
        eventually(lambda: "Permission denied" in caplog.text)
        (watched / "unlocked").touch()
        queue.wait_for(2)
    assert caplog.text.count("Permission denied") == 1


def test_a_queue_with_room_for_one_takes_them_one_after_the_other(tmp_path, watched, caplog):
    (tmp_path / "small").mkdir()
    for number in range(3):
        (watched / f"{number}.png").write_bytes(PNG)
    with AnsweringQueue.opened(tmp_path / "small", most_waiting=1) as queue, running(queue, watched):
        queue.wait_for(3)
    assert caplog.text == ""
