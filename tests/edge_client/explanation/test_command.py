"""`fedmedclip explain`: a picture, words or JSON, and nothing written over by accident."""

import io
import json
from importlib.metadata import version

import numpy as np
import pytest
from PIL import Image

from fedmedclip.edge_client.explanation.command import run_explanation
from fedmedclip.edge_client.explanation.overlay import NOTICE, caption, overlay_png
from fedmedclip.edge_client.images.readers.settings import ReaderSettings
from fedmedclip.edge_client.inference.classifier import Explanation, Prediction
from fedmedclip.edge_client.inference.regions import CELLS, Regions
from fedmedclip.protocol.errors import InvalidInputError
from tests.edge_client.conftest import random_pixels, write_image
from tests.edge_client.test_commands import fedmedclip, heads  # noqa: F401


@pytest.fixture
def scan(tmp_path):
    return write_image(tmp_path / "scan.png", seed=4)


def test_the_picture_and_the_json_say_the_same(tmp_path, tiny_bundle, heads, scan, site):  # noqa: F811
    target = tmp_path / "overlay.png"
    arguments = ["explain", scan, "--bundle", tiny_bundle.folder, "--heads", heads[0], "--json"]
    done = fedmedclip(*arguments, "-o", target, "--site", site[0], "--nearest", 3, without_extras=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["prediction"]["path"] == str(scan)
    assert found["label"] == max(found["prediction"]["probabilities"].items(), key=lambda item: item[1])[0]
    assert found["probability"] == found["prediction"]["probabilities"][found["label"]]
    assert found["kind"].startswith("occlusion, 3 x 3, 7 x 7")
    regions = np.array(found["regions"])
    assert regions.shape == (CELLS, CELLS)
    assert (regions.min(), regions.max()) == (0, 1)
    assert len(found["nearest"]) == 3
    assert all((tmp_path / "data" / near["label"]).is_dir() for near in found["nearest"])
    assert all(near["file"].startswith(str(tmp_path / "data")) for near in found["nearest"])
    assert found["provenance"]["software"] == f"fedmedclip-edge {version('fedmedclip-edge')}"
    assert found["notice"] == NOTICE
    with Image.open(target) as picture:
        picture.load()
        assert picture.mode == "RGB"
        assert not picture.info


def test_what_is_there_is_written_over_only_when_told_to(tmp_path, tiny_bundle, scan, capsys):
    target = tmp_path / "overlay.png"
    target.write_bytes(b"precious")

    def run(**changes):
        run_explanation(
            str(scan), tiny_bundle.folder, None, changes.pop("output", target), insecure=True, **changes
        )

    with pytest.raises(InvalidInputError, match=r"overlay\.png exists; replace it with --force"):
        run()
    assert target.read_bytes() == b"precious"
    original = scan.read_bytes()
    with pytest.raises(InvalidInputError, match=r"scan\.png is the image itself"):
        run(output=scan, force=True)
    assert scan.read_bytes() == original
    run(force=True)
    assert target.read_bytes().startswith(b"\x89PNG")
    words = capsys.readouterr().out.splitlines()
    assert NOTICE in words
    assert words[-1] == f"written: {target}"


def test_more_than_one_image_is_refused(tmp_path, tiny_bundle, scan):
    frames = [Image.fromarray(random_pixels(seed)) for seed in range(3)]
    film = tmp_path / "film.tif"
    frames[0].save(film, save_all=True, append_images=frames[1:])
    with pytest.raises(InvalidInputError, match=r"film\.tif has more than one image; give one"):
        run_explanation(
            str(film), tiny_bundle.folder, None, None, settings=ReaderSettings("all"), insecure=True
        )
    run_explanation(f"{film}#frame=2", tiny_bundle.folder, None, None, insecure=True)


def explanation(heat, loss=1.0, label="glioma"):
    regions = Regions("occlusion, 8 x 8 patches", np.asarray(heat, np.float32), loss)
    prediction = Prediction("scan.png", label, {label: 0.75, "other": 0.25}, 0.0, 1.0)
    pixels = np.full((64, 48, 3), 120, np.uint8)
    return Explanation(prediction, label, 0.75, regions, pixels, np.zeros(4, np.float32))


def picture_of(found):
    return np.asarray(Image.open(io.BytesIO(overlay_png(found))))


def test_the_regions_can_be_told_in_grey_too():
    heat = np.zeros((CELLS, CELLS))
    heat[1:3, 5:7] = 1
    grey = np.asarray(Image.fromarray(picture_of(explanation(heat))).convert("L")).astype(int)
    scale = (grey.shape[1] - 30) // 2 // 48
    left, top = 10 + scale * 48 + 10, 10
    cell_height, cell_width = scale * 64 // CELLS, scale * 48 // CELLS
    inside = grey[top + 2 * cell_height - 2, left + 6 * cell_width - 2]
    outside = grey[top + 6 * cell_height, left + 2 * cell_width]
    assert inside > outside + 40
    panel = grey[top : top + scale * 64, left : left + scale * 48]
    assert panel.max() == 255
    assert panel.min() == 0


def test_equal_explanations_give_equal_bytes_and_a_long_label_fits():
    heat = np.random.default_rng(0).random((CELLS, CELLS))
    assert overlay_png(explanation(heat)) == overlay_png(explanation(heat))
    long = explanation(heat, label="a label that is longer than the picture is wide " * 4)
    assert picture_of(long).shape == picture_of(explanation(heat)).shape


def test_a_map_that_says_little_says_so():
    heat = np.random.default_rng(0).random((CELLS, CELLS))
    assert any("the map says little" in line for line in caption(explanation(heat, loss=0.01)))
    assert not any("the map says little" in line for line in caption(explanation(heat, loss=0.5)))
    assert caption(explanation(heat, label="a\x1b[31mb"))[0] == "a\\x1b[31mb  75.0%"
