"""What a data report finds in real files."""

import hashlib
import shutil
import stat

import msgspec
import numpy as np
import pytest
from PIL import Image

from fedmedclip.edge_client.data_report.classes import chosen_classes
from fedmedclip.edge_client.data_report.findings import DataFindings
from fedmedclip.edge_client.data_report.report import FINDINGS, PAGE, report_on
from fedmedclip.edge_client.images.grouping import GroupNaming
from fedmedclip.edge_client.images.split import ContentLabel, write_split
from fedmedclip.protocol.errors import InvalidInputError
from tests.edge_client.data_report.conftest import scan


def named(pairs):
    return {(pair.likeness, frozenset((pair.first, pair.second))) for pair in pairs}


def test_copies_of_every_kind_are_told_apart(scans):
    found = report_on(scans, None)
    of_original = {
        (likeness, *(names - {"glioma/00.png"}))
        for likeness, names in named(found.within)
        if "glioma/00.png" in names
    }
    assert of_original == {
        ("same bytes", "glioma/copied.png"),
        ("same pixels", "glioma/same-pixels.bmp"),
        ("near-copy", "glioma/resaved.jpg"),
        ("near-copy", "glioma/smaller.png"),
    }
    assert found.different == found.images - 1
    # The copies are one group, with the one that has another label.
    assert found.groups.largest == 6
    assert found.groups.sizes == {1: 39, 6: 1}


def test_a_copy_under_another_label_is_a_label_error(scans):
    found = report_on(scans, None)
    assert ("near-copy", frozenset(("glioma/00.png", "healthy/brighter.png"))) in named(found.across)
    assert {"glioma", "healthy"} == {found.across[0].first_class, found.across[0].second_class}
    assert any("under two labels" in remark for remark in found.remarks)
    (scans / "healthy" / "brighter.png").unlink()
    found = report_on(scans, None)
    assert not found.across
    assert not found.pairs_across
    assert not any("under two labels" in remark for remark in found.remarks)


def test_forms_sizes_and_what_was_skipped(odd_files):
    found = report_on(odd_files, None)
    assert found.sizes.forms["DICOM, 12-bit grey"] == 1
    assert found.sizes.forms["PNG, 16-bit grey"] == 1
    assert (found.sizes.smallest.width, found.sizes.median.width, found.sizes.largest.width) == (64, 96, 96)
    assert [(one.reason, one.count, one.files) for one in found.skipped] == [
        ("truncated", 1, ["healthy/cut.png"])
    ]
    assert found.ignored_files == 1
    with pytest.raises(InvalidInputError, match=r"strict: image .*cut.png cannot be used: truncated"):
        report_on(odd_files, None, strict=True)


def test_classes_count_images_groups_and_parts(scans):
    glioma, healthy = report_on(scans, None).classes
    assert (glioma.name, glioma.images, glioma.different, glioma.groups) == ("glioma", 24, 23, 20)
    assert (healthy.name, healthy.images, healthy.different, healthy.groups) == ("healthy", 21, 21, 21)
    assert glioma.share == round(24 / 45, 4)
    for one in (glioma, healthy):
        assert sum(part.images for part in one.parts.values()) == one.images
        assert sum(part.groups for part in one.parts.values()) == one.groups


def test_a_recorded_split_is_judged(tmp_path, scans):
    """A split that was drawn by file, as earlier versions did, has copies on both sides."""
    part_of = {"glioma/resaved.jpg": "test", "healthy/brighter.png": "test", "glioma/05.png": "test"}
    recorded = {}
    for path in sorted(scans.rglob("*.*")):
        name = path.relative_to(scans).as_posix()
        if name == "healthy/19.png":
            continue
        image = ContentLabel(path.parent.name, name, hash_of(path))
        recorded[image.content_hash] = (image, part_of.get(name, "train"))
    write_split(tmp_path / "split.csv", recorded)
    found = report_on(scans, None, split_file=tmp_path / "split.csv")
    assert found.split is not None
    assert (found.split.test, found.split.unrecorded) == (3, 1)
    assert found.split.test_copies_in_training == 2
    assert found.split.test_look_alikes_in_training == 0
    assert found.split.groups_in_two_parts == 1
    assert any("figures on them flatter" in remark for remark in found.remarks)
    glioma = next(one for one in found.classes if one.name == "glioma")
    assert glioma.parts["test"].images == 2


def hash_of(path):
    return hashlib.sha256(path.read_bytes()).digest()


def test_a_groups_file_names_groups(tmp_path, scans):
    groups = scans / "mine.csv"
    groups.write_text("file,group\nglioma/05.png,patient 1\nglioma/06.png,patient 1\n")
    found = report_on(scans, None, naming=GroupNaming(file=groups))
    assert found.groups.sizes == {1: 37, 2: 1, 6: 1}
    assert found.groups.sources["groups file"] == 2
    assert b"patient 1" not in msgspec.json.encode(found)


def test_a_column_names_groups(tmp_path, scans):
    rows = [f"data/glioma/{number:02}.png,glioma,P{number // 2}" for number in range(20)]
    rows += [f"data/healthy/{number:02}.png,healthy," for number in range(20)]
    csv = tmp_path / "list.csv"
    csv.write_text("path,label,patient\n" + "\n".join(rows))
    found = report_on(csv, None, naming=GroupNaming("patient"))
    assert found.groups.sizes == {1: 20, 2: 10}
    assert [one.name for one in found.classes] == ["glioma", "healthy"]


def test_an_archive_keeps_its_parts(tmp_path):
    images = np.stack([np.asarray(scan(number, 28)) for number in range(30)])
    labels = (np.arange(30) % 2)[:, None]
    arrays = {}
    for part, rows in (("train", slice(0, 20)), ("val", slice(20, 24)), ("test", slice(24, 30))):
        arrays |= {f"{part}_images": images[rows], f"{part}_labels": labels[rows]}
    np.savez(tmp_path / "set.npz", **arrays)
    found = report_on(tmp_path / "set.npz", None)
    assert [one.name for one in found.classes] == ["0", "1"]
    assert [found.classes[0].parts[part].images for part in ("train", "validation", "test")] == [10, 2, 3]
    assert found.sizes.forms == {"archive, 8-bit grey": 30}


def test_one_class_few_images_and_none(tmp_path):
    data = tmp_path / "data"
    (data / "only").mkdir(parents=True)
    scan(1).save(data / "only" / "a.png")
    scan(1).save(data / "only" / "b.png")
    remarks = " ".join(report_on(data, None).remarks)
    assert "class 'only' has 1 different image" in remarks
    assert "all images are of class 'only'" in remarks
    assert "class 'only' has 1 group, so it cannot be in training, validation and test" in remarks
    assert "sends no update" in remarks
    for path in (data / "only").iterdir():
        path.write_bytes(b"\x89PNG")
    with pytest.raises(InvalidInputError, match="no image that can be read: 2 skipped"):
        report_on(data, None)
    (data / "empty").mkdir()
    with pytest.raises(InvalidInputError, match=r"class folder .*empty has no image"):
        report_on(data, None)


def test_classes_of_a_bundle_that_are_absent_or_unknown(scans, tiny_bundle):
    names = chosen_classes(scans, tiny_bundle.folder, None)
    found = report_on(scans, names)
    assert [(one.name, one.images) for one in found.classes][-1] == ("stroke", 0)
    assert any("no image of 'stroke'" in remark for remark in found.remarks)
    (scans / "stroke").mkdir()
    (scans / "stroke").rename(scans / "strok")
    with pytest.raises(InvalidInputError, match="did you mean 'stroke'"):
        report_on(scans, names)


def test_a_folder_of_sites_is_not_one_sites(tmp_path, scans):
    sites = tmp_path / "sites"
    for site in ("north", "south"):
        shutil.copytree(scans, sites / site)
    with pytest.raises(InvalidInputError, match="looks like a folder of sites, north, south; give one"):
        chosen_classes(sites, None, None)
    # Patients within classes have other folders in each class.
    shutil.move(sites / "south" / "healthy", sites / "south" / "patient-9")
    assert chosen_classes(sites, None, None) == ("north", "south")


def test_the_files_are_for_their_owner_and_agree(tmp_path, scans):
    out = tmp_path / "a" / "report"
    found = report_on(scans, None, out=out)
    assert stat.S_IMODE(out.stat().st_mode) == 0o700
    for name in (PAGE, FINDINGS):
        assert stat.S_IMODE((out / name).stat().st_mode) == 0o600
    assert msgspec.json.decode((out / FINDINGS).read_bytes(), type=DataFindings) == found
    # Nothing is written without being asked for.
    before = sorted(tmp_path.rglob("*"))
    report_on(scans, None)
    assert sorted(tmp_path.rglob("*")) == before


def test_many_copies_cost_no_square(tmp_path):
    data = tmp_path / "data"
    for label in ("a", "b"):
        (data / label).mkdir(parents=True)
        for number in range(150):
            Image.new("L", (16, 16), 100).save(data / label / f"{number}.png")
    found = report_on(data, None)
    assert sum(found.pairs_within.values()) + sum(found.pairs_across.values()) == 299
    assert found.groups.sizes == {300: 1}
