"""The list of images to label: what is written is read again, and what a person gets wrong is one line."""

import csv
import os
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from fedmedclip.edge_client.adaptation.label_list import can_be_listed, read_labels, write_list
from fedmedclip.protocol.errors import InvalidInputError

CLASSES = ["glioma", "=cmd", "no tumor"]


@pytest.fixture
def images(tmp_path):
    names = ("a.png", "sub/b.png", "scan.tif#frame=1", "scan.tif#frame=2", "set.npz#train=000003")
    return [tmp_path / "scans" / name for name in names]


def read(tmp_path, images, text, encoding="utf-8"):
    (tmp_path / "list.csv").write_bytes(text.encode(encoding))
    return read_labels(tmp_path / "list.csv", images, CLASSES)


def test_labels_are_those_of_files_and_addresses_and_empty_ones_are_counted(tmp_path, images):
    found = read(
        tmp_path, images,
        "# label is one of: glioma, '=cmd, no tumor\n\nfile,label,by whom\nscans/a.png, glioma ,x\n"
        "./scans/sub/../sub/b.png,\nscans/scan.tif,no tumor\nscans/scan.tif#frame=2,'=cmd\n\n"
        f"{images[4]},=cmd\n",
    )  # fmt: skip
    assert found.labels.tolist() == [0, -1, 2, 1, 1]
    assert found.labels.dtype == np.int64
    assert found.empty == 1


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_a_spreadsheet_may_have_saved_it_in_its_own_way(tmp_path, images, delimiter):
    text = f"# label is one of: a, b{delimiter}\r\nFile{delimiter}Label\r\nscans/a.png{delimiter}glioma\r\n"
    assert read(tmp_path, images, text, "utf-8-sig").labels.tolist() == [0, -1, -1, -1, -1]


def test_images_are_known_by_where_they_lie_not_by_how_they_are_called(tmp_path, images, monkeypatch):
    images[0].parent.mkdir()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to("scans")
    relative = [image.relative_to(tmp_path) for image in images]
    assert read(tmp_path, relative, "file,label\nlink/a.png,glioma\n").labels[0] == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "lacks the columns file,label"),
        ("path,label\na,b\n", "lacks the columns file,label"),
        ("file,label\nscans/c.png,glioma\n", "line 2: 'scans/c.png' is none of the images given"),
        ("file,label\nscans/a.pgn,\n", "did you mean 'a.png'?"),
        ("#\nfile,label\n\nscans/a.png,x\n", "line 4: 'x' is no class of the bundle, which has glioma, =cmd"),
        ("file,label\nscans/a.png,gliom\n", "did you mean 'glioma'?"),
        ("file,label\nscans/a.png,no tumor\nscans/a.png,glioma\n", "line 3: .* another label in line 2"),
        ("file,label\n,glioma\n", "line 2: there is no file for its label"),
        ("file,label\n" + "x" * 140_000 + ",glioma\n", "line 2: not valid CSV"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_its_line(tmp_path, images, text, words):
    with pytest.raises(InvalidInputError, match=words) as refusal:
        read(tmp_path, images, text)
    assert "list.csv" in str(refusal.value)
    assert len(str(refusal.value)) < 1000


def test_another_encoding_is_named(tmp_path, images):
    with pytest.raises(InvalidInputError, match="is in UTF-16; save it as UTF-8"):
        read(tmp_path, images, "file,label\nscans/a.png,glioma\n", "utf-16")


def test_a_list_that_is_there_is_never_replaced(tmp_path, images):
    path = tmp_path / "list.csv"
    write_list(path, images, CLASSES)
    before = path.read_bytes()
    assert before.startswith(b"# label is one of: glioma, =cmd, no tumor\nfile,label\nscans/a.png,\n")
    with pytest.raises(InvalidInputError, match="may hold labels"):
        write_list(path, images[:1], CLASSES)
    assert path.read_bytes() == before


names = st.text(st.characters(codec="utf-8", exclude_characters="/"), min_size=1, max_size=20).filter(
    lambda name: name.isprintable() and name not in (".", "..", "list of labels.csv")
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(names, min_size=1, max_size=4, unique=True), st.data())
@example(["=1+2", "@a", "#frame=1", '"', "a,b", "-x;"], None)
def test_whatever_images_are_called_their_labels_come_back(tmp_path, called, data):
    images = [tmp_path / name for name in called]
    path = tmp_path / "list of labels.csv"
    path.unlink(missing_ok=True)
    assert all(can_be_listed(path, image) for image in images)
    write_list(path, images, CLASSES)
    assert read_labels(path, images, CLASSES).empty == len(images)
    comment, *rest = path.read_text().splitlines()
    rows = list(csv.reader(rest))
    labels = [number % 3 for number in range(len(images))]
    if data is not None:
        labels = data.draw(st.lists(st.integers(0, 2), min_size=len(images), max_size=len(images)))
    with path.open("w", newline="") as file:
        file.write(f"{comment}\n")
        filled = [[name, CLASSES[label]] for [name, _], label in zip(rows[1:], labels, strict=True)]
        csv.writer(file).writerows([rows[0], *filled])
    assert read_labels(path, images, CLASSES).labels.tolist() == labels


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=80), st.sampled_from([b"", b"file,label\n", b"file;label\n"]))
def test_any_bytes_are_labels_or_one_line(tmp_path, content, header):
    path = tmp_path / "any.csv"
    path.write_bytes(header + content)
    labels: list[int] = []
    with suppress(InvalidInputError):
        labels = read_labels(path, [tmp_path / "a"], CLASSES).labels.tolist()
    assert set(labels) <= {-1, 0, 1, 2}


def test_names_that_no_line_can_hold_are_not_listed(tmp_path):
    path = tmp_path / "list.csv"
    for name in (b"a\nb.png", b"a\x1b.png", b"\xff.png", "a\u202eb.png".encode()):
        assert not can_be_listed(path, tmp_path / os.fsdecode(name))
    assert can_be_listed(path, tmp_path / "ä b.png")
