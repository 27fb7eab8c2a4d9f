"""A site's data become embeddings, labels and parts, with a report of everything left out."""

import gc
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image

from fedmedclip.edge_client.features.encoder import Encoder
from fedmedclip.edge_client.features.extraction import extract_features
from fedmedclip.edge_client.features.feature_store import FeatureStore
from fedmedclip.edge_client.features.labelled import (
    LabelledFeatures,
    load_labelled_features,
    load_site_features,
)
from fedmedclip.edge_client.images.dataset import list_images
from fedmedclip.edge_client.images.opening import identify_image, read_image
from fedmedclip.edge_client.images.readers.settings import ReaderSettings, parse_window
from fedmedclip.edge_client.images.split import read_split
from fedmedclip.edge_client.site.configuration import ImageSettings
from fedmedclip.protocol.bundle.bundle import Bundle
from fedmedclip.protocol.bundle.preprocessing import fit
from fedmedclip.protocol.errors import InvalidInputError
from tests.edge_client.conftest import MakeImage, random_pixels


def rows(features: LabelledFeatures) -> set[bytes]:
    return {row.tobytes() for row in features.embeddings}


def test_gives_three_parts_with_labels(tmp_path: Path, class_folders: Path, tiny_bundle: Bundle) -> None:
    with FeatureStore(tmp_path / "features") as store:
        site = load_site_features(class_folders, tiny_bundle, store, tmp_path / "split.csv", seed=1)
        embeddings, labels, _ = load_labelled_features(class_folders, tiny_bundle, store)
    parts = [site.train, site.validation, site.test]
    label_of = {row.tobytes(): label for row, label in zip(embeddings, labels, strict=True)}
    assert len(label_of) == 21
    for part in parts:
        assert part.embeddings.dtype == np.float32
        assert part.labels.dtype == np.int64
        assert [label_of[row.tobytes()] for row in part.embeddings] == part.labels.tolist()
        assert set(part.labels.tolist()) == {0, 1, 2}
    assert (
        len(rows(site.train) | rows(site.validation) | rows(site.test))
        == sum(map(len, map(rows, parts)))
        == 21
    )
    assert site.part_counts["test"] == {"glioma": 3, "healthy": 1, "stroke": 1}
    assert site.report.class_counts == {"glioma": 12, "healthy": 6, "stroke": 3}
    assert site.report.images == site.report.encoded == 21


def test_a_restart_gives_the_same_from_the_store(
    tmp_path: Path, class_folders: Path, tiny_bundle: Bundle
) -> None:
    with FeatureStore(tmp_path / "features") as store:
        first = load_site_features(class_folders, tiny_bundle, store, tmp_path / "split.csv", seed=1)
    with FeatureStore(tmp_path / "features") as store:
        second = load_site_features(class_folders, tiny_bundle, store, tmp_path / "split.csv", seed=2)
    for part in ("train", "validation", "test"):
        np.testing.assert_array_equal(getattr(second, part).embeddings, getattr(first, part).embeddings)
        np.testing.assert_array_equal(getattr(second, part).labels, getattr(first, part).labels)
    assert second.report.encoded == 0


def test_reports_everything_left_out(
    tmp_path: Path, class_folders: Path, tiny_bundle: Bundle, make_image: MakeImage
) -> None:
    shutil.rmtree(class_folders / "stroke")
    (class_folders / "glioma" / "empty.jpg").touch()
    Image.new("LAB", (30, 30)).save(class_folders / "glioma" / "lab.tif")
    Image.new("LAB", (30, 31)).save(class_folders / "healthy" / "lab.tif")
    (class_folders / "glioma" / "Thumbs.db").touch()
    shutil.copy(class_folders / "glioma" / "00.png", class_folders / "glioma" / "copy.png")
    shutil.copy(class_folders / "glioma" / "01.png", class_folders / "healthy" / "glioma.png")
    with FeatureStore(tmp_path / "features") as store:
        site = load_site_features(class_folders, tiny_bundle, store, tmp_path / "split.csv", seed=1)
    assert site.report.lines() == [
        "20 images (glioma 13, healthy 7); 3 skipped: 2 LAB colours, 1 empty file",
        "18 embeddings computed, the others were known",
        "no image of stroke: nothing about that is learned here",
        "1 other files ignored",
        "2 copies of another image; a copy is always in the same part",
        "1 images occur under more than one label; check them",
        "18 groups, 2 of them of several images, the largest of 2 (images by source: look-alike 4); "
        "a group is always in one part",
        "2 pairs: the same pixels in two files; 1 of them under two labels",
    ]
    assert len(read_split(tmp_path / "split.csv")) == 18


def test_copies_never_leak_into_the_test(tmp_path: Path, tiny_bundle: Bundle, make_image: MakeImage) -> None:
    for number in range(60):
        make_image(tmp_path / "data" / "glioma" / f"{number}.png", seed=number % 20)
    with FeatureStore(tmp_path / "features") as store:
        site = load_site_features(tmp_path / "data", tiny_bundle, store, tmp_path / "split.csv", seed=1)
    parts = [rows(site.train), rows(site.validation), rows(site.test)]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 20
    assert len(site.test.labels) == 3 * len(parts[2])


def test_a_class_without_two_different_readable_images_is_refused(
    tmp_path: Path, class_folders: Path, tiny_bundle: Bundle
) -> None:
    for name in ("01.png", "02.png"):
        content = (class_folders / "stroke" / name).read_bytes()
        (class_folders / "stroke" / name).write_bytes(content[: len(content) // 2])
    with FeatureStore(tmp_path / "features") as store:
        with pytest.raises(InvalidInputError, match=r"'stroke'.*has 1 \(2 skipped: 2 truncated\)"):
            load_site_features(class_folders, tiny_bundle, store, tmp_path / "split.csv", seed=1)
        shutil.copy(class_folders / "stroke" / "00.png", class_folders / "stroke" / "01.png")
        with pytest.raises(InvalidInputError, match="'stroke' needs two different images"):
            load_site_features(class_folders, tiny_bundle, store, tmp_path / "split.csv", seed=1)
    assert not (tmp_path / "split.csv").exists()


def test_evaluation_needs_one_readable_image(
    tmp_path: Path, tiny_bundle: Bundle, make_image: MakeImage
) -> None:
    make_image(tmp_path / "data" / "healthy" / "1.png", seed=1)
    with FeatureStore(tmp_path / "features") as store:
        embeddings, labels, report = load_labelled_features(tmp_path / "data", tiny_bundle, store)
        assert (embeddings.shape, labels.tolist(), report.images) == ((1, 16), [1], 1)
        (tmp_path / "data" / "healthy" / "1.png").write_bytes(b"")
        with pytest.raises(InvalidInputError, match="1 skipped: 1 empty file"):
            load_labelled_features(tmp_path / "data", tiny_bundle, store)


def test_a_csv_with_a_missing_file_reports_it(
    tmp_path: Path, tiny_bundle: Bundle, make_image: MakeImage
) -> None:
    lines = ["path,label"]
    for number in range(5):
        make_image(tmp_path / "images" / f"{number}.jpg", seed=number)
        lines.append(f"images/{number}.jpg,stroke")
    (tmp_path / "table.csv").write_text("\n".join([*lines, "images/gone.jpg,stroke"]))
    with FeatureStore(tmp_path / "features") as store:
        site = load_site_features(tmp_path / "table.csv", tiny_bundle, store, tmp_path / "split.csv", seed=1)
    assert site.report.class_counts == {"glioma": 0, "healthy": 0, "stroke": 5}
    assert [(image.path.name, image.reason) for image in site.report.skipped] == [("gone.jpg", "missing")]


def test_real_scans(tmp_path: Path, shared: Path, make_bundle: object) -> None:
    data = shared / "data" / "brain_tumor" / "hospital_1"
    class_names = ["glioma_tumor", "meningioma_tumor", "no_tumor", "pituitary_tumor"]
    bundle = make_bundle(tmp_path / "bundle", class_names=class_names)  # type: ignore[operator]
    with FeatureStore(tmp_path / "features") as store:
        site = load_site_features(data, bundle, store, tmp_path / "split.csv", seed=1)
    assert site.report.images == 486
    assert site.report.skipped == ()
    assert [len(part.labels) for part in (site.train, site.validation, site.test)] == [340, 48, 98]


def test_the_images_table_of_a_configuration() -> None:
    for text, settings in (
        ('frames = "all"\nwindow = [40, 400]\nstrict = true', ImageSettings("all", (40.0, 400.0), True)),
        ('window = "range"', ImageSettings(window="range")),
        ("window = 2", ImageSettings(window=2)),
    ):
        assert msgspec.toml.decode(text, type=ImageSettings) == settings
        gc.collect()
    for text in ("window = 0", 'window = "wide"', "window = [40]", "window = [40, 0]", 'frames = "last"'):
        with pytest.raises((msgspec.ValidationError, InvalidInputError)):
            msgspec.toml.decode(text, type=ImageSettings)


@pytest.mark.parametrize(("text", "window"), [("2", 2), ("range", "range"), ("40,400", (40.0, 400.0))])
def test_windows_as_they_are_typed(text: str, window: object) -> None:
    assert parse_window(text) == window


@pytest.mark.parametrize("text", ["0", "wide", "40,", "40,-1", "1,2,3", "nan,nan"])
def test_windows_that_are_none(text: str) -> None:
    with pytest.raises(InvalidInputError, match="window"):
        parse_window(text)


def test_strict_refuses_what_would_be_skipped(
    tmp_path: Path, class_folders: Path, tiny_bundle: Bundle
) -> None:
    (class_folders / "glioma" / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with FeatureStore(tmp_path / "features") as store:
        with pytest.raises(InvalidInputError, match=r"strict.*cut\.png.*1 skipped"):
            load_site_features(class_folders, tiny_bundle, store, tmp_path / "split.csv", 0, strict=True)
        with pytest.raises(InvalidInputError, match="strict"):
            load_labelled_features(class_folders, tiny_bundle, store, strict=True)
        assert load_labelled_features(class_folders, tiny_bundle, store)[2].encoded == 0


def test_the_frames_of_a_file_stay_together(tmp_path: Path, class_folders: Path, tiny_bundle: Bundle) -> None:
    for number in range(6):
        first, *others = [Image.fromarray(random_pixels(10 * number + frame)) for frame in range(3)]
        first.save(class_folders / "stroke" / f"stack-{number}.tif", save_all=True, append_images=others)
    with FeatureStore(tmp_path / "features") as store:
        features = load_site_features(
            class_folders, tiny_bundle, store, tmp_path / "split.csv", 0, settings=ReaderSettings("all")
        )
    assert features.report.images == 21 + 18
    assert features.report.copies == 0
    for counts in features.part_counts.values():
        assert counts["stroke"] >= 1
    recorded = read_split(tmp_path / "split.csv")
    assert len(recorded) == 21 + 6


def test_look_alikes_are_in_one_part_whatever_their_files_are(tmp_path: Path, tiny_bundle: Bundle) -> None:
    data = tmp_path / "data"
    for label in ("glioma", "healthy"):
        (data / label).mkdir(parents=True)
        for number in range(20):
            image = Image.fromarray(random_pixels(100 * len(label) + number, 40, 40)).resize((160, 160))
            image.save(data / label / f"{number}.png")
            image.save(data / label / f"{number}-saved-again.jpg", quality=80)
    with FeatureStore(tmp_path / "features") as store:
        site = load_site_features(data, tiny_bundle, store, tmp_path / "split.csv", seed=1)
    part_of: dict[str, set[str]] = {}
    for image, part in read_split(tmp_path / "split.csv").values():
        assert image.reason == "look-alike"
        part_of.setdefault(image.name.split(".")[0].removesuffix("-saved-again"), set()).add(part)
    assert len(part_of) == 40
    assert all(len(parts) == 1 for parts in part_of.values())
    assert site.leak is not None
    assert site.leak.line("split.csv") is None
    assert "40 pairs: copies, re-saved or edited; 0 of them under two labels" in site.report.lines()


def test_what_an_older_feature_store_lacks_is_seen_once(
    tmp_path: Path, class_folders: Path, tiny_bundle: Bundle
) -> None:
    path = tmp_path / "features"
    with FeatureStore(path) as store:
        first = load_site_features(class_folders, tiny_bundle, store, tmp_path / "1.csv", seed=1)
    with closing(sqlite3.connect(path)) as database:
        database.execute("DROP TABLE appearance")
    for seen in (21, 0):
        told: list[tuple[int, int]] = []
        with FeatureStore(path) as store:
            again = load_site_features(
                class_folders, tiny_bundle, store, tmp_path / "2.csv", seed=1,
                progress=lambda done, total, told=told: told.append((done, total)),
            )  # fmt: skip
        assert again.report.encoded == 0
        assert told.count((1, 21)) == bool(seen)
        assert again.grouping is not None
        assert first.grouping is not None
        assert again.grouping.names == first.grouping.names
    with closing(sqlite3.connect(path)) as database, database:
        assert database.execute("SELECT count(*) FROM appearance").fetchone() == (21,)
        database.execute("UPDATE appearance SET seen = zeroblob(1044)")
    with FeatureStore(path) as store:
        assert (
            store.get_appearances(extract_features(list_images([class_folders]), tiny_bundle, store).keys)
            == {}
        )


def test_a_groups_file_that_changes_moves_no_image(
    tmp_path: Path, class_folders: Path, tiny_bundle: Bundle
) -> None:
    groups, record = class_folders / "groups.csv", tmp_path / "split.csv"

    def parts() -> dict[str, str]:
        return {image.name: part for image, part in read_split(record).values()}

    groups.write_text("file,group\nglioma/00.png,Ms Quillfeather\nglioma/01.png,Ms Quillfeather\n")
    with FeatureStore(tmp_path / "features") as store:
        first = load_site_features(class_folders, tiny_bundle, store, record, seed=1)
        drawn = parts()
        assert drawn["glioma/00.png"] == drawn["glioma/01.png"]
        assert "Quillfeather" not in record.read_text()
        assert first.leak is not None
        assert first.leak.line("split.csv") is None
        trained, tested = (
            next(name for name, part in drawn.items() if part == wanted and name.startswith("glioma"))
            for wanted in ("train", "test")
        )
        groups.write_text(f"file,group\n{trained},p\n{tested},p\n")
        second = load_site_features(class_folders, tiny_bundle, store, record, seed=1)
    assert parts() == drawn
    assert second.leak is not None
    assert second.leak.test == 1
    assert "drawn before these groups were known" in str(second.leak.line("split.csv"))


def write_archive(path: Path, **changes: np.ndarray) -> Path:
    arrays: dict[str, np.ndarray] = {}
    for offset, (part, count) in enumerate({"train": 9, "val": 6, "test": 3}.items()):
        arrays[f"{part}_images"] = np.stack(
            [random_pixels(100 * offset + number, 28, 28) for number in range(count)]
        )
        arrays[f"{part}_labels"] = np.arange(count, dtype=np.uint8)[:, None] % 3
    np.savez_compressed(path, **(arrays | changes))
    return path


def test_an_archive_keeps_its_split(tmp_path: Path, tiny_bundle: Bundle) -> None:
    data = write_archive(tmp_path / "small.npz")
    with FeatureStore(tmp_path / "features") as store:
        features = load_site_features(data, tiny_bundle, store, tmp_path / "split.csv", 0)
        sizes = [len(part.labels) for part in (features.train, features.validation, features.test)]
        assert sizes == [9, 6, 3]
        np.testing.assert_array_equal(features.train.labels, np.arange(9) % 3)
        assert load_labelled_features(data, tiny_bundle, store)[1].tolist() == [0, 1, 2]
        with Encoder(tiny_bundle) as encoder:
            shown = Image.fromarray(random_pixels(100 + 4, 28, 28))
            expected = encoder.encode(fit(shown, tiny_bundle.manifest.preprocessing)[None])
        np.testing.assert_array_equal(features.validation.embeddings[4], expected[0])
    assert len(list_images([data])) == 18
    assert read_image(data.with_name("small.npz#train=000008")).size == (28, 28)


@pytest.mark.parametrize("axis", [1, 3])
def test_an_axis_of_one_channel_does_not_count(tmp_path: Path, axis: int) -> None:
    grey = np.stack([random_pixels(number, 28, 20)[..., 0] for number in range(9)])
    plain = write_archive(tmp_path / "plain.npz", train_images=grey)
    data = write_archive(tmp_path / "channel.npz", train_images=np.expand_dims(grey, axis))
    for number in (4, 0, 8):
        address = f"npz#train={number:06}"
        shown = read_image(data.with_suffix(f".{address}"))
        np.testing.assert_array_equal(np.asarray(shown)[..., 0], grey[number])
        ours, theirs = (
            identify_image(path.with_suffix(f".{address}"), ReaderSettings()) for path in (data, plain)
        )
        assert ours == theirs


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_labels": np.full((9, 1), 3)}, "label 3.*3 classes"),
        ({"train_labels": np.zeros((9, 14), np.uint8)}, "several labels"),
        ({"train_labels": np.zeros((8, 1), np.uint8)}, "several labels"),
        ({"train_images": np.zeros((9, 8, 8), np.float32)}, "9 skipped: 9 an archive of float32 values"),
        ({"train_images": np.zeros((9, 8, 8, 8), np.uint8)}, "an archive of volumes"),
        ({"train_images": np.asfortranarray(np.zeros((9, 8, 8), np.uint8))}, "an archive in Fortran order"),
        ({"train_labels": np.zeros((9, 1))}, "an archive of float64 labels"),
    ],
)
def test_archives_that_cannot_be_used(
    tmp_path: Path, tiny_bundle: Bundle, changes: dict[str, np.ndarray], message: str
) -> None:
    data = write_archive(tmp_path / "odd.npz", **changes)
    with FeatureStore(tmp_path / "features") as store, pytest.raises(InvalidInputError, match=message):
        load_site_features(data, tiny_bundle, store, tmp_path / "split.csv", 0, strict=True)
    data.write_bytes(b"PK\x03\x04")
    with pytest.raises(InvalidInputError, match="not an image archive"):
        list_images([data])
