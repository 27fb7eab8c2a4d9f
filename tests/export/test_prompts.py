"""Class prompts from a file or from folders."""

from pathlib import Path

import pytest

from fedmedclip.export.prompts import read_class_prompts
from fedmedclip.protocol.errors import InvalidInputError


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def make_folders(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).mkdir(parents=True)
    return root


def test_file_keeps_its_order(tmp_path: Path) -> None:
    path = write(
        tmp_path / "classes.toml",
        'templates = ["a {}.", "{} here"]\n[classes]\nwell = ["nothing", "normal"]\nill = ["a tumor"]\n',
    )
    prompts = read_class_prompts(path)
    assert prompts.templates == ["a {}.", "{} here"]
    assert list(prompts.classes.items()) == [("well", ["nothing", "normal"]), ("ill", ["a tumor"])]


def test_templates_may_be_left_out(tmp_path: Path) -> None:
    path = write(tmp_path / "classes.toml", '[classes]\nwell = ["normal"]\nill = ["a tumor"]\n')
    assert read_class_prompts(path).templates == ["a picture of a {}."]


def test_folder_of_classes_gives_names_with_blanks(tmp_path: Path) -> None:
    folder = make_folders(tmp_path, "no_tumor", "glioma_tumor", ".cache")
    (folder / "no_tumor" / "1.PNG").touch()
    prompts = read_class_prompts(folder)
    assert list(prompts.classes.items()) == [
        ("glioma_tumor", ["glioma tumor"]),
        ("no_tumor", ["no tumor"]),
    ]
    assert prompts.templates == ["a picture of a {}."]


def test_folders_inside_a_class_are_no_classes(tmp_path: Path) -> None:
    folder = make_folders(tmp_path, "ill/more", "well")
    (folder / "ill" / "1.jpg").touch()
    assert list(read_class_prompts(folder).classes) == ["ill", "well"]


def test_folder_of_sites_gives_the_union_of_their_classes(tmp_path: Path) -> None:
    folder = make_folders(tmp_path, "a/well", "a/ill", "b/ill", "b/rare", "global_test/well")
    assert list(read_class_prompts(folder).classes) == ["ill", "rare", "well"]


def test_classes_file_in_the_folder_wins(tmp_path: Path) -> None:
    folder = make_folders(tmp_path, "a/well", "a/ill")
    write(folder / "classes.toml", '[classes]\nwell = ["fine"]\nill = ["sick"]\n')
    assert read_class_prompts(folder).classes == {"well": ["fine"], "ill": ["sick"]}


def test_real_file_is_read(shared: Path) -> None:
    prompts = read_class_prompts(shared / "data" / "brain_tumor")
    assert list(prompts.classes) == ["glioma_tumor", "meningioma_tumor", "no_tumor", "pituitary_tumor"]
    assert len(prompts.templates) == 3


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[classes", "line 1, the last: Expected"),
        ("templates = ['{}']", r"no table \[classes\]"),
        ("classes = 3", r"begun by a line \[classes\]"),
        ("[classes]\na = ['x']", "1 classes, at least 2"),
        ("[classes]\na = 'x'\nb = ['y']", r"\[classes\] a is \"x\" \(text\); give a list"),
        ("[classes]\na = []\nb = ['y']", "give a list"),
        ("[classes]\na = [1]\nb = ['y']", "give a list"),
        ("[classes]\na = [' ']\nb = ['y']", "blank text"),
        ("[classes]\na = ['x']\nb = ['x']", "same phrases"),
        ("[classes]\n'../a' = ['x']\nb = ['y']", "cannot be the name of a folder"),
        ("templates = ['a picture']\n[classes]\na = ['x']\nb = ['y']", "has no {}"),
        ("templates = []\n[classes]\na = ['x']\nb = ['y']", "templates is"),
        ("template = ['{}']\n[classes]\na = ['x']\nb = ['y']", "'template'; did you mean 'templates'"),
    ],
)
def test_unusable_files_say_why(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(InvalidInputError, match=complaint) as caught:
        read_class_prompts(write(tmp_path / "classes.toml", text))
    assert "classes.toml" in str(caught.value)


def test_a_byte_order_mark_is_accepted(tmp_path: Path) -> None:
    path = tmp_path / "classes.toml"
    path.write_bytes(b"\xef\xbb\xbftemplates = ['{}']\r\n[classes]\r\na = ['x']\r\nb = ['y']\r\n")
    assert list(read_class_prompts(path).classes) == ["a", "b"]


def test_binary_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "classes.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidInputError, match="is in UTF-16"):
        read_class_prompts(tmp_path / "classes.toml")


def test_nothing_there_or_nothing_in_it_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="no file or folder"):
        read_class_prompts(tmp_path / "nothing")
    with pytest.raises(InvalidInputError, match="0 classes"):
        read_class_prompts(tmp_path)


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["stroke ", "glioma"], "class 'stroke ' begins or ends with a blank"),
        (["stroke", "Stroke"], "classes 'stroke' and 'Stroke' are too alike"),
        (["no tumor", "no_tumor"], "classes 'no tumor' and 'no_tumor' are too alike"),
        (["ad\u00e9nome", "ade\u0301nome"], r"classes 'ad\xe9nome' and 'ade\u0301nome' are too alike"),
        (["a\\u001b[2J", "b"], r"class 'a\x1b[2J' cannot be the name of a folder"),
    ],
)
def test_classes_that_people_would_mistake_are_refused(tmp_path: Path, names: list[str], words: str) -> None:
    path = tmp_path / "classes.toml"
    lines = [f'"{name}" = ["phrase {number}"]' for number, name in enumerate(names)]
    path.write_text("\n".join(["[classes]", *lines]), encoding="utf-8")
    with pytest.raises(InvalidInputError) as refused:
        read_class_prompts(path)
    assert words in str(refused.value)
