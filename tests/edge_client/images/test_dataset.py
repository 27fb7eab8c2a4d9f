"""Labelled folders and CSV files are listed whole, or refused with a line that says where."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from fedmedclip.edge_client.images.dataset import list_images, load_dataset
from fedmedclip.protocol.errors import InvalidInputError
from tests.edge_client.conftest import CLASS_NAMES, MakeImage


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def names(path: Path) -> list[tuple[str, str]]:
    return [(image.name, image.label) for image in load_dataset(path, CLASS_NAMES).images]


def test_lists_class_folders_with_their_sub_folders(tmp_path: Path) -> None:
    for name in ("stroke/b.PNG", "stroke/patient 1/a.jpg", "glioma/1.tif", "glioma/2.webp"):
        touch(tmp_path / name)
    assert names(tmp_path) == [
        ("glioma/1.tif", "glioma"),
        ("glioma/2.webp", "glioma"),
        ("stroke/b.PNG", "stroke"),
        ("stroke/patient 1/a.jpg", "stroke"),
    ]
    assert load_dataset(tmp_path, CLASS_NAMES).absent_classes == ("healthy",)


def test_counts_other_files_as_ignored(tmp_path: Path) -> None:
    for name in ("1.png", "2.png", "Thumbs.db", ".DS_Store", "notes.txt", "._1.png"):
        touch(tmp_path / "stroke" / name)
    touch(tmp_path / "README.md")
    touch(tmp_path / "loose.png")
    touch(tmp_path / "__MACOSX" / "stroke" / "1.png")
    dataset = load_dataset(tmp_path, CLASS_NAMES)
    assert [image.name for image in dataset.images] == ["stroke/1.png", "stroke/2.png"]
    assert dataset.ignored_files == 6


def test_follows_links_once(tmp_path: Path) -> None:
    touch(tmp_path / "elsewhere" / "1.png")
    touch(tmp_path / "elsewhere" / "2.png")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "stroke").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "again").symlink_to(tmp_path / "elsewhere")
    assert len(load_dataset(tmp_path / "data", CLASS_NAMES).images) == 2


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "no class folders.*glioma, healthy, stroke"),
        (["loose.png"], "no class folders"),
        (["stroke/notes.txt"], "stroke has no image"),
        (["stroke/1.png"], "'stroke' has only 1 image"),
        (["tumour/1.png", "stroke/1.png"], "tumour, not a class of the bundle.*glioma, healthy, stroke"),
    ],
)
def test_refuses_folders(tmp_path: Path, files: list[str], message: str) -> None:
    for name in files:
        touch(tmp_path / name)
    with pytest.raises(InvalidInputError, match=message) as caught:
        load_dataset(tmp_path, CLASS_NAMES)
    assert "\n" not in str(caught.value)


def test_one_image_is_enough_when_asked(tmp_path: Path) -> None:
    touch(tmp_path / "stroke" / "1.png")
    assert len(load_dataset(tmp_path, CLASS_NAMES, minimum_per_class=1).images) == 1


def test_refuses_a_missing_path(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="does not exist"):
        load_dataset(tmp_path / "gone", CLASS_NAMES)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_reads_csv_relative_to_its_folder(tmp_path: Path, encoding: str) -> None:
    absolute = tmp_path / "far" / "x.png"
    table = tmp_path / "table.csv"
    rows = [
        "path,label,patient",
        "images/b.png,stroke,1",
        f"{absolute},stroke,2",
        '"a,b.png",healthy,3',
        "c.png,healthy,3",
    ]
    table.write_text("\r\n".join(rows), encoding=encoding)
    images = {image.name: image for image in load_dataset(table, CLASS_NAMES).images}
    assert images["images/b.png"].path == tmp_path / "images" / "b.png"
    assert images[str(absolute)].path == absolute
    assert images["a,b.png"].label == "healthy"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "line 1: the header"),
        (b"path;label\na.png;stroke\n", "line 1: the header.*'path;label'"),
        (b"file,class\n", "line 1"),
        (b"path,label\n", "no images"),
        (b"path,label\na.png,stroke\nb.png\n", "line 3"),
        (b"path,label\na.png,stroke,extra\n", "line 2"),
        (b"path,label\n,stroke\n", "line 2"),
        (b"path,label\na.png,\n", "line 2"),
        (b"path,label\na.png,stroke\nb.png,stroke\na.png,glioma\n", "line 4.*already in line 2"),
        (b'path,label\n"a.png,stroke\n', "not valid CSV"),
        (b"path,label\na\0.png,stroke\n", "line 2"),
        (b"path,label\n" + b"a" * 200_000 + b",stroke\n", "line 2: not valid CSV"),
        (b"PK\x03\x04\xff\xfe\x00", r"line 1: byte 4 \(0xff\)"),
        ("path,label\n".encode("utf-16"), "is in UTF-16; save it as UTF-8"),
        (b"path,label\na.png,stroke\n", "'stroke' has only 1 image"),
        (b"path,label\na.png,tumour\nb.png,tumour\n", "tumour, not a class"),
    ],
)
def test_refuses_csv(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "table.csv").write_bytes(content)
    with pytest.raises(InvalidInputError, match=message) as caught:
        load_dataset(tmp_path / "table.csv", CLASS_NAMES)
    assert "table.csv" in str(caught.value)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.binary(max_size=200)
    | st.lists(st.text(alphabet='ab,"\r\n;\0é\u2028', max_size=12)).map(
        lambda rows: "\n".join(["path,label", *rows]).encode()
    )
)
@example(b'path,label\na,"b\r')
@example(b"\xef\xbb\xbfpath,label\n\n\na,stroke\n\nb,stroke")
def test_any_csv_is_read_or_refused(tmp_path: Path, content: bytes) -> None:
    table = tmp_path / "table.csv"
    table.write_bytes(content)
    try:
        dataset = load_dataset(table, ["a", "b", "stroke"])
    except InvalidInputError:
        return
    assert all(image.label in ("a", "b", "stroke") and image.name for image in dataset.images)


def test_lists_images_for_prediction(
    tmp_path: Path, make_image: MakeImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a/1.png", "a/b/2.jpg", "c [1].png", "d.png"):
        make_image(tmp_path / name, seed=1)
    touch(tmp_path / "a" / "Thumbs.db")
    odd = touch(tmp_path / "scan.bin")
    monkeypatch.chdir(tmp_path)
    assert list_images(["a"]) == [Path("a/1.png"), Path("a/b/2.jpg")]
    assert list_images([odd, "a/1.png", "a"]) == [odd, Path("a/1.png"), Path("a/b/2.jpg")]
    assert list_images(["**/*.png"]) == [Path("a/1.png"), Path("c [1].png"), Path("d.png")]
    assert list_images(["c [1].png"]) == [Path("c [1].png")]
    assert list_images(["*"]) == [Path("a/1.png"), Path("a/b/2.jpg"), Path("c [1].png"), Path("d.png")]


@pytest.mark.parametrize("item", ["gone.png", "*.tif", "empty", "e*"])
def test_refuses_what_names_no_image(tmp_path: Path, item: str, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path / "empty" / "notes.txt")
    touch(tmp_path / "a.png")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidInputError) as caught:
        list_images(["a.png", item])
    assert item in str(caught.value)


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("Stroke", "'Stroke' (did you mean 'stroke'?)"),
        ("stroke ", "'stroke ' (did you mean 'stroke'?)"),
        ("no tumor", "'no tumor' (did you mean 'no_tumor'?)"),
        ("ade\u0301nome", r"'ade\u0301nome' (did you mean 'ad\xe9nome'?)"),
        ("str\u043eke", r"'str\u043eke' (did you mean 'stroke'?)"),
        ("x\x1b[31m", r"'x\x1b[31m', not a class"),
    ],
)
@pytest.mark.parametrize("as_csv", [True, False])
def test_a_class_in_another_spelling_is_shown_with_the_one_meant(
    tmp_path: Path, written: str, shown: str, as_csv: bool
) -> None:
    for name in ("a.png", "b.png"):
        touch(tmp_path / "data" / written / name)
    data = tmp_path / "data"
    if as_csv:
        data = tmp_path / "list.csv"
        data.write_text(f"path,label\na.png,{written}\nb.png,{written}\n", encoding="utf-8")
    with pytest.raises(InvalidInputError) as refused:
        load_dataset(data, ["stroke", "no_tumor", "ad\u00e9nome"])
    assert shown in str(refused.value)


def test_blanks_around_the_columns_names_do_not_count(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("path, label \na.png,stroke\nb.png,stroke\n")
    assert names(tmp_path / "list.csv") == [("a.png", "stroke"), ("b.png", "stroke")]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_a_csv_in_another_encoding_is_called_by_its_name(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "list.csv").write_text("path,label\na.png,stroke\nb.png,stroke\n", encoding=encoding)
    with pytest.raises(InvalidInputError, match=r"list.csv is in UTF-(16|32); save it as UTF-8"):
        load_dataset(tmp_path / "list.csv", CLASS_NAMES)
