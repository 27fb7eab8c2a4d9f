"""From where the group of an image is known: a column, a file, a DICOM header, or how it looks."""

import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.data import get_testdata_file

from fedmedclip.edge_client.images.appearance import Appearances, appearance_of
from fedmedclip.edge_client.images.dataset import load_dataset
from fedmedclip.edge_client.images.grouping import (
    Grouping,
    GroupNaming,
    NamedGroups,
    group_images,
    name_groups,
)
from fedmedclip.edge_client.images.groups import read_groups
from fedmedclip.protocol.errors import InvalidInputError

CLASSES = ("glioma", "healthy")
KEY = b"k" * 32
NAMING = GroupNaming(key=KEY)


def make_images(folder: Path, count: int = 4) -> None:
    for label in CLASSES:
        for number in range(count):
            path = folder / label / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng([number, label == "glioma"]).integers(
                0, 256, (20, 20, 3), np.uint8
            )
            Image.fromarray(pixels).save(path)


def named(data: Path, naming: GroupNaming = NAMING) -> NamedGroups:
    dataset = load_dataset(data, CLASSES, group_column=naming.column)
    return name_groups(dataset, dataset.images, naming)


def dicom(path: Path, **header: str) -> None:
    dataset = pydicom.dcmread(str(get_testdata_file("CT_small.dcm")))
    for keyword in ("PatientID", "IssuerOfPatientID", "StudyInstanceUID"):
        if keyword in dataset:
            delattr(dataset, keyword)
    for keyword, value in header.items():
        setattr(dataset, keyword, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset.save_as(path)


def test_a_column_names_groups(tmp_path: Path) -> None:
    make_images(tmp_path)
    rows = [("glioma/0.png", "p1"), ("glioma/1.png", " p1 "), ("healthy/0.png", "p2"), ("healthy/1.png", "")]
    lines = [f"{path},{path.split('/')[0]},{group}" for path, group in rows]
    for column, wanted in (("group", None), ("patient", "patient")):
        (tmp_path / "list.csv").write_text("\n".join([f"path,label,{column}", *lines]) + "\n")
        found = named(tmp_path / "list.csv", GroupNaming(column=wanted, key=KEY))
        assert found.names[0] == found.names[1] != found.names[2]
        assert found.names[3] == ""
        assert found.sources == ("column", "column", "column", "")
        assert not any("p1" in name for name in found.names)
    other = named(tmp_path / "list.csv", GroupNaming(column="patient", key=b"another key"))
    assert not {*found.names[:3]} & {*other.names}
    with pytest.raises(
        InvalidInputError, match="no column 'subject' for the groups, found 'path,label,patient'"
    ):
        named(tmp_path / "list.csv", GroupNaming(column="subject"))
    with pytest.raises(InvalidInputError, match="no CSV file and has no column 'subject'"):
        named(tmp_path, GroupNaming(column="subject"))


def test_a_groups_file_beside_the_images_or_above_them_names_groups(tmp_path: Path) -> None:
    site = tmp_path / "federation" / "hospital_0"
    make_images(site)
    (site / "groups.csv").write_text("file,group\nglioma/0.png,a\nglioma/1.png,a\nglioma/9.png,b\n")
    found = named(site)
    assert found.names[0] == found.names[1] != ""
    assert found.names[2:] == ("",) * 6
    assert found.sources[:3] == ("groups file", "groups file", "")
    assert found.notes == (f"{site / 'groups.csv'} names 1 files that are no images of {site}",)
    assert load_dataset(site, CLASSES).ignored_files == 0
    above = tmp_path / "federation" / "groups.csv"
    above.write_text(
        "file,group\nhospital_0/healthy/0.png,a\nhospital_0/healthy/2.png,a\nhospital_1/x.png,c\n"
    )
    (tmp_path / "link").symlink_to(tmp_path / "federation")
    for file in (above, tmp_path / "link" / "groups.csv"):
        found = named(site, GroupNaming(file=file))
        assert [name != "" for name in found.names] == [False] * 4 + [True, False, True, False]
        assert found.notes == ()


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("path,group\na,b\n", "lacks the column 'file'"),
        ("file,group\na.png,p\na.png,q\n", "line 3: 'a.png' has two groups"),
        ("file,group\n,p\n", "line 2: a file or its group is missing"),
    ],
)
def test_a_groups_file_that_cannot_be_used_is_refused(tmp_path: Path, text: str, fault: str) -> None:
    (tmp_path / "groups.csv").write_text(text)
    with pytest.raises(InvalidInputError, match=fault):
        read_groups(tmp_path / "groups.csv")
    with pytest.raises(InvalidInputError, match="cannot be read"):
        read_groups(tmp_path / "gone.csv")


def test_dicom_patients_are_groups_by_a_keyed_hash(tmp_path: Path) -> None:
    make_images(tmp_path, 2)
    for name, header in {
        "a": {"PatientID": "4711", "StudyInstanceUID": "1.2.3"},
        "b": {"PatientID": "4711 ", "StudyInstanceUID": "1.2.4"},
        "c": {"PatientID": "4711", "IssuerOfPatientID": "elsewhere", "StudyInstanceUID": "1.2.5"},
        "d": {"StudyInstanceUID": "1.2.6"},
        "e": {"PatientID": "", "StudyInstanceUID": "1.2.6"},
        "f": {},
    }.items():
        dicom(tmp_path / "glioma" / f"{name}.dcm", **header)
    found = named(tmp_path)
    names = dict(zip("01abcdef01", zip(found.names, found.sources, strict=True), strict=False))
    assert names["a"] == names["b"] != names["c"]
    assert names["a"][1] == names["c"][1] == "patient"
    assert names["d"] == names["e"]
    assert names["d"][1] == "study"
    assert names["f"] == ("", "")
    other = named(tmp_path, GroupNaming(key=b"another key"))
    assert not ({*found.names} & {*other.names}) - {""}


def test_one_identifier_for_everybody_is_none(tmp_path: Path) -> None:
    for label in CLASSES:
        for number in range(3):
            dicom(tmp_path / label / f"{number}.dcm", PatientID="ANON", StudyInstanceUID=f"1.2.{number}")
    found = named(tmp_path)
    assert set(found.sources) == {"study"}
    assert len(set(found.names)) == 3
    assert found.notes == ("all 6 DICOM files have one PatientID: their groups are studies",)


def grouped(images: list[Image.Image], names: tuple[str, ...], contents: list[bytes]) -> Grouping:
    sources = tuple("patient" if name else "" for name in names)
    looks = Appearances.of([appearance_of(image) for image in images])
    return group_images(NamedGroups(names, sources), contents, looks)  # type: ignore[arg-type]


def test_names_look_alikes_and_frames_are_joined() -> None:
    noise = [
        Image.fromarray(np.random.default_rng(seed).integers(0, 256, (32, 32, 3), np.uint8))
        for seed in range(8)
    ]
    contents = [bytes([number]) * 32 for number in range(8)]
    contents[6] = contents[7]
    noise[3] = noise[0].copy()
    found = grouped(noise, ("p", "p", "q", "q", "", "", "", ""), contents)
    # Row 3 is a copy of row 0 under another patient's name: all four are one group.
    assert found.rows.tolist() == [0, 0, 0, 0, 4, 5, 6, 6]
    assert found.names[:4] == ("p",) * 4
    assert found.names[4:6] == ("", "")
    assert found.sources == ("patient",) * 4 + ("", "") + ("look-alike",) * 2
    lines = found.lines(["a", "a", "a", "b", "a", "b", "a", "a"])
    assert lines[0] == (
        "4 groups, 2 of them of several images, the largest of 4 (images by source: patient 4, "
        "look-alike 2); a group is always in one part"
    )
    assert "1 pair: the same pixels in two files; 1 of them under two labels" in lines
