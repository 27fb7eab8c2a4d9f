"""Each content is encoded once, whatever happens: kills, copies, unreadable files, other processes."""

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fedmedclip.edge_client.features.encoder import Encoder, encoded_images
from fedmedclip.edge_client.features.extraction import SkippedImage, extract_features, summarize_skipped
from fedmedclip.edge_client.features.feature_store import FeatureStore
from fedmedclip.edge_client.images.opening import read_image
from fedmedclip.protocol.bundle.bundle import Bundle
from fedmedclip.protocol.bundle.preprocessing import fit
from fedmedclip.protocol.errors import BundleError
from tests import ROOT
from tests.edge_client.conftest import EMBEDDING_SIZE, MakeBundle, MakeImage, random_pixels


def write_images(folder: Path, count: int, make_image: MakeImage) -> list[Path]:
    return [make_image(folder / f"{number:03}.png", seed=number) for number in range(count)]


def test_embeds_every_image_in_order(tmp_path: Path, tiny_bundle: Bundle, make_image: MakeImage) -> None:
    paths = write_images(tmp_path / "images", 37, make_image)
    seen: list[tuple[int, int]] = []
    with FeatureStore(tmp_path / "features") as store:
        extraction = extract_features(
            paths, tiny_bundle, store, batch_size=8, progress=lambda *step: seen.append(step)
        )
    with Encoder(tiny_bundle) as encoder:
        pixels = np.stack([fit(read_image(path), tiny_bundle.manifest.preprocessing) for path in paths])
        np.testing.assert_array_equal(extraction.embeddings, encoder.encode(pixels))
    assert (extraction.paths, extraction.positions) == (paths, list(range(37)))
    assert (extraction.skipped, extraction.encoded) == ([], 37)
    assert seen[0] == (0, 37)
    assert seen[-1] == (37, 37)
    assert seen == sorted(seen)


def test_a_second_time_runs_no_encoder(
    tmp_path: Path, make_bundle: MakeBundle, make_image: MakeImage
) -> None:
    bundle = make_bundle(tmp_path / "bundle")
    paths = write_images(tmp_path / "images", 10, make_image)
    with FeatureStore(tmp_path / "features") as store:
        first = extract_features(paths, bundle, store)
    # Without its file, an encoder could not even be loaded.
    bundle.image_encoder.unlink()
    renamed = [path.rename(path.with_name(f"renamed {path.name}")) for path in paths]
    damaged = tmp_path / "damaged.jpg"
    damaged.write_bytes(b"damaged")
    before = encoded_images()
    with FeatureStore(tmp_path / "features") as store:
        second = extract_features([*reversed(renamed), damaged], bundle, store)
    np.testing.assert_array_equal(second.embeddings, first.embeddings[::-1])
    assert (second.encoded, encoded_images()) == (0, before)
    assert [image.reason for image in second.skipped] == ["not an image"]


def test_another_bundle_shares_nothing(
    tmp_path: Path, make_bundle: MakeBundle, make_image: MakeImage
) -> None:
    paths = write_images(tmp_path / "images", 3, make_image)
    bundles = [
        make_bundle(tmp_path / f"bundle {seed}", seed=seed, embedding_size=8 + seed) for seed in (0, 1)
    ]
    with FeatureStore(tmp_path / "features") as store:
        extractions = [extract_features(paths, bundle, store) for bundle in bundles]
    assert [extraction.embeddings.shape for extraction in extractions] == [(3, 8), (3, 9)]
    assert [extraction.encoded for extraction in extractions] == [3, 3]


def test_copies_are_encoded_once(tmp_path: Path, tiny_bundle: Bundle, make_image: MakeImage) -> None:
    paths = [
        make_image(tmp_path / name, seed=seed) for name, seed in (("a.png", 1), ("b.png", 2), ("c.png", 1))
    ]
    with FeatureStore(tmp_path / "features") as store:
        extraction = extract_features(paths, tiny_bundle, store)
    assert extraction.encoded == 2
    assert extraction.content_hashes[0] == extraction.content_hashes[2]
    np.testing.assert_array_equal(extraction.embeddings[0], extraction.embeddings[2])


def test_unreadable_images_are_skipped_with_their_reasons(
    tmp_path: Path, tiny_bundle: Bundle, make_image: MakeImage
) -> None:
    good = write_images(tmp_path / "images", 4, make_image)
    content = io.BytesIO()
    Image.fromarray(random_pixels(9)).save(content, "JPEG")
    bad = {name: tmp_path / name for name in ("cut.jpg", "cut again.jpg", "empty.png", "lab.tif", "gone.png")}
    for name in ("cut.jpg", "cut again.jpg"):
        bad[name].write_bytes(content.getvalue()[:-200])
    bad["empty.png"].touch()
    Image.new("LAB", (20, 20)).save(bad["lab.tif"])
    mixed = [bad["cut.jpg"], good[0], bad["empty.png"], good[1], good[2], *list(bad.values())[1:], good[3]]
    with FeatureStore(tmp_path / "features") as store:
        extraction = extract_features(mixed, tiny_bundle, store, batch_size=2)
        alone = extract_features(good, tiny_bundle, store)
    assert extraction.paths == good
    assert [mixed[position] for position in extraction.positions] == good
    np.testing.assert_array_equal(extraction.embeddings, alone.embeddings)
    assert (
        summarize_skipped(extraction.skipped)
        == "6 skipped: 2 empty file, 2 truncated, 1 LAB colours, 1 missing"
    )


def test_nothing_readable_gives_nothing(tmp_path: Path, tiny_bundle: Bundle) -> None:
    with FeatureStore(tmp_path / "features") as store:
        for paths in ([], [tmp_path / "gone.png"]):
            extraction = extract_features(paths, tiny_bundle, store)
            assert extraction.embeddings.shape == (0, EMBEDDING_SIZE)
            assert len(extraction.skipped) == len(paths)


def test_a_file_that_changes_meanwhile_is_skipped(
    tmp_path: Path, tiny_bundle: Bundle, make_image: MakeImage
) -> None:
    paths = write_images(tmp_path / "images", 40, make_image)

    def change_the_last(done: int, total: int) -> None:
        if done == 0:
            make_image(paths[-1], seed=1234)

    with FeatureStore(tmp_path / "features") as store:
        extraction = extract_features(paths, tiny_bundle, store, progress=change_the_last)
        assert [(image.path, image.reason) for image in extraction.skipped] == [
            (paths[-1], "changed while it was read")
        ]
        assert extract_features(paths, tiny_bundle, store).encoded == 1


def test_an_unusable_encoder_is_a_bundle_error(
    tmp_path: Path, make_bundle: MakeBundle, make_image: MakeImage
) -> None:
    bundle = make_bundle(tmp_path / "bundle", encoder=b"not an encoder")
    with FeatureStore(tmp_path / "features") as store, pytest.raises(BundleError):
        extract_features(write_images(tmp_path / "images", 3, make_image), bundle, store)


EXTRACT = """
import sys, time
from pathlib import Path
from fedmedclip.edge_client.features.feature_store import FeatureStore
from fedmedclip.edge_client.features.extraction import extract_features
from fedmedclip.protocol.bundle.bundle import open_bundle

def progress(done, total):
    print(done, flush=True)
    time.sleep(float(sys.argv[4]))

paths = sorted(Path(sys.argv[3]).iterdir())
with FeatureStore(Path(sys.argv[2])) as store:
    extract_features(paths, open_bundle(Path(sys.argv[1])), store, batch_size=4, progress=progress)
"""


def start_extraction(bundle: Bundle, store: Path, images: Path, pause: float) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", EXTRACT, str(bundle.folder), str(store), str(images), str(pause)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(arguments, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)


def test_a_killed_extraction_goes_on_where_it_was(
    tmp_path: Path, tiny_bundle: Bundle, make_image: MakeImage
) -> None:
    paths = write_images(tmp_path / "images", 160, make_image)
    # An unreadable file among them must not shift the batches of the second life.
    (tmp_path / "images" / "001a.png").write_bytes(b"damaged")
    process = start_extraction(tiny_bundle, tmp_path / "features", tmp_path / "images", pause=0.02)
    assert process.stdout is not None
    reported = next(done for line in process.stdout if (done := int(line)) >= 50)
    process.kill()
    process.wait()

    with FeatureStore(tmp_path / "undisturbed") as store:
        undisturbed = extract_features(paths, tiny_bundle, store, batch_size=4)
    with FeatureStore(tmp_path / "features") as store:
        stored = store.get_many(tiny_bundle.digest, undisturbed.keys)
        # All that was reported (one of it was the unreadable file) is there; the rest is not.
        assert reported - 1 <= len(stored) < 160
        before = encoded_images()
        resumed = extract_features(paths, tiny_bundle, store, batch_size=4)
    assert encoded_images() - before == resumed.encoded == 160 - len(stored)
    np.testing.assert_array_equal(resumed.embeddings, undisturbed.embeddings)


def test_two_processes_extract_at_once(tmp_path: Path, tiny_bundle: Bundle, make_image: MakeImage) -> None:
    paths = write_images(tmp_path / "images", 60, make_image)
    processes = [
        start_extraction(tiny_bundle, tmp_path / "features", tmp_path / "images", pause=0.0) for _ in range(2)
    ]
    for process in processes:
        output, _ = process.communicate()
        assert process.returncode == 0
        assert output.splitlines()[-1] == "60"
    with FeatureStore(tmp_path / "features") as store:
        assert extract_features(paths, tiny_bundle, store).encoded == 0


def test_summary_of_nothing() -> None:
    assert summarize_skipped([]) == "none skipped"
    assert summarize_skipped([SkippedImage(Path("a"), "palette")]) == "1 skipped: 1 palette"
