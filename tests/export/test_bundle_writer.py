"""A bundle takes its place whole or not at all, and only where nothing else stands."""

from pathlib import Path

import pytest

from fedmedclip.export.bundle_writer import new_bundle
from fedmedclip.protocol.bundle.bundle import IMAGE_ENCODER, MANIFEST
from fedmedclip.protocol.errors import InvalidInputError


def write(out: Path, content: str, *, force: bool = False) -> None:
    with new_bundle(out, force=force) as folder:
        (folder / MANIFEST).write_text(content)


def test_appears_only_when_it_is_whole(tmp_path: Path) -> None:
    out = tmp_path / "new" / "bundle"
    with new_bundle(out, force=False) as folder:
        (folder / MANIFEST).write_text("{}")
        assert not out.exists()
    assert [path.name for path in out.parent.iterdir()] == ["bundle"]
    assert (out / MANIFEST).read_text() == "{}"


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    write(tmp_path / "bundle", "{}")
    assert (tmp_path / "bundle" / MANIFEST).is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_a_damaged_bundle_is_replaced_by_force(tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    write(out, '{"trunc')
    (out / IMAGE_ENCODER).write_bytes(b"")
    with pytest.raises(InvalidInputError, match="--force"):
        write(out, "{}")
    write(out, "{}", force=True)
    assert [path.name for path in out.iterdir()] == [MANIFEST]
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_the_old_bundle_stays_when_the_new_one_fails(tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    write(out, "old")

    def fail() -> None:
        with new_bundle(out, force=True) as folder:
            (folder / MANIFEST).write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert (out / MANIFEST).read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.parametrize("force", [False, True])
def test_a_file_or_a_bundle_with_more_in_it_is_never_replaced(tmp_path: Path, force: bool) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InvalidInputError, match="is a file"):
        write(tmp_path / "file", "{}", force=force)
    write(tmp_path / "bundle", "{}")
    (tmp_path / "bundle" / "notes.txt").write_text("mine")
    with pytest.raises(InvalidInputError, match="not a bundle"):
        write(tmp_path / "bundle", "{}", force=force)
    assert (tmp_path / "bundle" / "notes.txt").read_text() == "mine"


def test_a_place_that_cannot_be_written_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidInputError, match="cannot be written") as caught:
        write(tmp_path / "file" / "bundle", "{}")
    assert "\n" not in str(caught.value)
