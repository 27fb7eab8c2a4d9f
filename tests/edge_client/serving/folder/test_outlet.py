"""Answers beside images: written again as well as once, never over what is not ours, rows exactly once."""

import contextlib
import csv
import errno
import os
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedmedclip.edge_client.serving.answer import Answer
from fedmedclip.edge_client.serving.arrival import Arrival
from fedmedclip.edge_client.serving.folder import answers_csv, appended_file, place
from fedmedclip.edge_client.serving.folder.answers_csv import AnswersCsv
from fedmedclip.edge_client.serving.folder.opening import folder_outlet
from fedmedclip.edge_client.serving.folder.outlet import FolderOutlet, answer_name
from fedmedclip.edge_client.serving.folder.settings import FolderSettings
from fedmedclip.edge_client.serving.outlet import DeliveryError
from tests.edge_client.serving.folder.examples import CLASSES, answer_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "watched").mkdir()
    return tmp_path / "watched"


def outlet_of(folder: Path, output: Path | None = None) -> FolderOutlet:
    state = folder.parent / "state"
    state.mkdir(exist_ok=True)
    return folder_outlet(FolderSettings(path="watched"), folder, output, CLASSES, state)


def rows(folder: Path, name: str = "answers.csv") -> list[dict[str, str]]:
    with (folder / name).open(newline="") as file:
        return list(csv.DictReader(file))


def ids(folder: Path, name: str = "answers.csv") -> list[int]:
    return [int(row["id"], 16) for row in rows(folder, name)]


def test_an_answer_beside_its_image_and_a_row(folder):
    outlet = outlet_of(folder)
    arrival = Arrival(door="folder", key="k", name="caf.png", content=b"", context={"path": "caf%E9.png"})
    payload = outlet.prepare(arrival, folder, answer_of(1), None)
    assert payload == b"caf\xe9.png"
    assert outlet.prepare(msgspec.structs.replace(arrival, door="http"), folder, answer_of(1), None) is None
    outlet.deliver(payload, answer_of(1))
    outlet.deliver(payload, answer_of(1))
    written = folder / os.fsdecode(b"caf\xe9.png.json")
    assert msgspec.json.decode(written.read_bytes(), type=Answer) == answer_of(1)
    (row,) = rows(folder)
    assert (row["path"], row["label"], row["probability_=mass"]) == ("caf\\xe9.png", "'=mass", "0.75")
    assert row["time"] == "2023-11-14T22:13:22+00:00"


def test_an_output_folder_has_the_sub_folders_of_the_images(folder, tmp_path):
    outlet = outlet_of(folder, tmp_path / "answers" / "here")
    outlet.deliver(b"a/b/scan.png", answer_of(1))
    assert (tmp_path / "answers" / "here" / "a" / "b" / "scan.png.json").exists()
    assert ids(tmp_path / "answers" / "here") == [1]
    assert list(folder.iterdir()) == []


def test_a_long_name_and_its_twin_have_an_answer_each():
    names = {answer_name("x" * 250 + end) for end in ("a.png", "b.png")}
    assert len(names) == 2
    assert all(len(name) == 255 and name.endswith(".json") for name in names)


def test_an_older_answer_does_not_take_the_place_of_a_newer_one(folder):
    outlet = outlet_of(folder)
    outlet.deliver(b"scan.png", answer_of(2))
    outlet.deliver(b"scan.png", answer_of(1))
    assert msgspec.json.decode((folder / "scan.png.json").read_bytes())["id"] == answer_of(2).id
    assert ids(folder) == [2, 1]


@pytest.mark.parametrize("there", ["text", "link", "folder"])
def test_what_is_not_ours_is_not_written_over(folder, tmp_path, there):
    target, other = folder / "scan.png.json", tmp_path / "other"
    other.write_text("{}")
    if there == "text":
        target.write_text("{}")
    elif there == "link":
        target.symlink_to(other)
    else:
        target.mkdir()
    outlet = outlet_of(folder)
    with pytest.raises(DeliveryError, match="is no answer; move it away"):
        outlet.deliver(b"scan.png", answer_of(1))
    assert other.read_text() == "{}"
    assert ids(folder) == [1], "its row does not wait for it"
    target.rename(tmp_path / "away")
    outlet.deliver(b"scan.png", answer_of(1))
    assert target.exists()
    assert ids(folder) == [1]


def test_nothing_is_written_out_of_the_folder(folder, tmp_path):
    (tmp_path / "outside").mkdir()
    (folder / "sub").symlink_to(tmp_path / "outside")
    (folder / "answers.csv").symlink_to(tmp_path / "outside" / "rows")
    outlet = outlet_of(folder)
    with pytest.raises(DeliveryError):
        outlet.deliver(b"sub/scan.png", answer_of(1))
    with pytest.raises(DeliveryError, match=r"answers\.csv"):
        outlet.deliver(b"scan.png", answer_of(2))
    assert list((tmp_path / "outside").iterdir()) == []


def test_a_folder_that_is_gone_or_not_mounted_is_waited_for(folder, monkeypatch):
    monkeypatch.setattr(place.os.path, "ismount", lambda path: path in ("/", os.path.realpath(folder)))
    outlet = outlet_of(folder)
    monkeypatch.setattr(place.os.path, "ismount", lambda path: path == "/")
    with pytest.raises(DeliveryError, match="nothing is mounted") as raised:
        outlet.deliver(b"scan.png", answer_of(1))
    assert not raised.value.permanent
    assert list(folder.iterdir()) == [], "nothing is written into the empty folder below"


@pytest.mark.parametrize("name", ["scan.png", "gone/scan.png"])
def test_an_image_whose_folder_was_removed_is_put_aside(folder, name):
    outlet = outlet_of(folder)
    if name == "scan.png":
        outlet.deliver(name.encode(), answer_of(1))
    else:
        with pytest.raises(DeliveryError, match="No such file") as raised:
            outlet.deliver(name.encode(), answer_of(1))
        assert raised.value.permanent
    assert ids(folder) == [1]


def test_a_file_that_people_save_move_and_delete(folder, caplog):
    caplog.set_level("INFO")
    outlet, table = outlet_of(folder), folder / "answers.csv"
    for number in (1, 2):
        outlet.deliver(b"scan.png", answer_of(number))
    older = table.read_bytes()
    outlet.deliver(b"scan.png", answer_of(3))
    # A spreadsheet saves what it had read, with its own line ends and without the last one.
    table.unlink()
    table.write_bytes(older.replace(b"\n", b"\r\n").rstrip())
    outlet.deliver(b"scan.png", answer_of(4))
    assert ids(folder) == [1, 2, 4]
    assert "1 rows that stood in it are gone" in caplog.text
    table.rename(folder / "april.csv")
    outlet.deliver(b"scan.png", answer_of(5))
    assert (ids(folder), ids(folder, "april.csv")) == ([5], [1, 2, 4])
    table.unlink()
    outlet.deliver(b"scan.png", answer_of(5))
    outlet.deliver(b"scan.png", answer_of(6))
    assert ids(folder) == [6], "what stood is not written again into another file"
    table.write_text("a;b;c\n1;2;3\n")
    outlet.deliver(b"scan.png", answer_of(7))
    assert table.read_text() == "a;b;c\n1;2;3\n"
    assert ids(folder, "answers-2.csv") == [7]


class KilledError(Exception):
    """Stands for a SIGKILL: what was done is done, what follows is not."""


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_row_is_there_exactly_once_wherever_a_kill_falls(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("rows")
    table = AnswersCsv(folder, CLASSES, folder / "ledger.db")
    wanted = list(range(data.draw(st.integers(1, 3))))
    for number in wanted:
        for _ in range(data.draw(st.integers(0, 2))):
            with pytest.MonkeyPatch.context() as patch:
                _kill_at(patch, data)
                with contextlib.suppress(KilledError):
                    table.append("scan.png", answer_of(number))
            table.close()
            table = AnswersCsv(folder, CLASSES, folder / "ledger.db")
        table.append("scan.png", answer_of(number))
    table.close()
    assert ids(folder) == wanted


def _kill_at(patch: pytest.MonkeyPatch, data: st.DataObject) -> None:
    """Let one of the writes end after some bytes, or one of the commits not happen."""
    written, marked = answers_csv.append_whole, AnswersCsv._mark
    steps = iter([data.draw(st.sampled_from(["go", "kill"])) for _ in range(3)])

    def write(file, content: bytes) -> None:
        if next(steps, "go") == "kill":
            file.write(content[: data.draw(st.integers(0, len(content)))])
            raise KilledError
        written(file, content)

    def mark(self, *arguments: object) -> None:
        if next(steps, "go") == "kill":
            raise KilledError
        marked(self, *arguments)

    patch.setattr(answers_csv, "append_whole", write)
    patch.setattr(AnswersCsv, "_mark", mark)


def test_a_disk_that_fills_up_leaves_no_half_row(folder, monkeypatch):
    outlet = outlet_of(folder)
    outlet.deliver(b"scan.png", answer_of(1))
    before = (folder / "answers.csv").read_bytes()
    full: Callable[[int], None] = lambda descriptor: (_ for _ in ()).throw(  # noqa: E731
        OSError(errno.ENOSPC, "No space left on device")
    )
    with monkeypatch.context() as patch:
        patch.setattr(appended_file.os, "fsync", full)
        with pytest.raises(DeliveryError, match="No space left"):
            outlet.deliver(b"scan.png", answer_of(2))
    assert (folder / "answers.csv").read_bytes() == before
    outlet.deliver(b"scan.png", answer_of(2))
    assert ids(folder) == [1, 2]
