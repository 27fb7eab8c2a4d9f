"""A pool's groups are those that its sites would find, joined where sites hold copies of one image."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fedmedclip.edge_client.features.feature_store import FeatureStore
from fedmedclip.protocol.bundle.bundle import Bundle
from fedmedclip.simulation.federation.feature_pool import FeaturePool, pool_of_folder
from tests.edge_client.conftest import CLASS_NAMES, random_pixels, write_tiny_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_tiny_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for number, site in enumerate(("hospital_0", "hospital_1", "global_test")):
        for label, name in enumerate(CLASS_NAMES):
            folder = tmp_path / "data" / site / name
            folder.mkdir(parents=True)
            for image in range(6):
                pixels = random_pixels(1000 * number + 100 * label + image, 40, 40)
                Image.fromarray(pixels).resize((120, 120)).save(folder / f"{image}.png")
    return tmp_path / "data"


def groups(data: Path, bundle: Bundle) -> tuple[FeaturePool, dict[str, int]]:
    """The pool, and the group of each image of its sites by name; copies of a file are left out."""
    with FeatureStore(data.parent / "features") as store:
        pool = pool_of_folder(data, bundle, store)
    seen: set[bytes] = set()
    files = []
    for path in sorted(data.glob("hospital_*/*/*.*g")):
        if path.read_bytes() not in seen:
            files.append(path.relative_to(data).as_posix())
            seen.add(path.read_bytes())
    return pool, dict(zip(files, pool.groups.tolist(), strict=True))


def test_images_without_names_stand_alone(data: Path, bundle: Bundle) -> None:
    pool, found = groups(data, bundle)
    assert len(set(found.values())) == len(found) == 36
    assert pool.global_groups is not None
    assert len(set(pool.global_groups.tolist())) == 18


def test_a_groups_file_at_the_top_names_groups_of_all_sites_and_of_the_global_test(
    data: Path, bundle: Bundle
) -> None:
    named = ["hospital_0/glioma/0.png", "hospital_0/stroke/1.png", "hospital_1/glioma/5.png"]
    of_test = ["global_test/glioma/0.png", "global_test/glioma/1.png"]
    rows = [f"{file},p" for file in named] + [f"{file},q" for file in of_test]
    (data / "groups.csv").write_text("\n".join(["file,group", *rows]) + "\n")
    pool, found = groups(data, bundle)
    assert len({found[file] for file in named}) == 1
    assert len(set(found.values())) == 34
    assert pool.global_groups is not None
    assert pool.global_groups[0] == pool.global_groups[1]
    assert len(set(pool.global_groups.tolist())) == 17


def test_a_sites_own_groups_file_is_of_that_site_alone(data: Path, bundle: Bundle) -> None:
    for site in ("hospital_0", "hospital_1"):
        (data / site / "groups.csv").write_text("file,group\nglioma/0.png,p\nhealthy/0.png,p\n")
    _, found = groups(data, bundle)
    for site in ("hospital_0", "hospital_1"):
        assert found[f"{site}/glioma/0.png"] == found[f"{site}/healthy/0.png"]
    assert found["hospital_0/glioma/0.png"] != found["hospital_1/glioma/0.png"]


def test_copies_at_two_sites_are_one_group(data: Path, bundle: Bundle) -> None:
    first = data / "hospital_0" / "glioma" / "0.png"
    Image.open(first).save(data / "hospital_1" / "glioma" / "saved-again.jpg", quality=85)
    Image.open(first).save(data / "hospital_1" / "glioma" / "same-pixels.png", compress_level=1)
    # A byte-identical copy is left out, and what its site says of it still holds.
    shutil.copy(first, data / "hospital_1" / "stroke" / "copy.png")
    (data / "hospital_1" / "groups.csv").write_text("file,group\nstroke/copy.png,p\nstroke/3.png,p\n")
    pool, found = groups(data, bundle)
    together = ("hospital_0/glioma/0.png", "hospital_1/glioma/saved-again.jpg",
                "hospital_1/glioma/same-pixels.png", "hospital_1/stroke/3.png")  # fmt: skip
    assert len({found[file] for file in together}) == 1
    assert "1 copies of another image left out" in pool.notes
    again, _ = groups(data, bundle)
    np.testing.assert_array_equal(again.groups, pool.groups)
    assert again.digest == pool.digest
