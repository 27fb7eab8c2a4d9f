"""The curves tell a good map from a bad one; the comparison counts a group once and says who is better."""

import numpy as np
import pytest

from benchmarks.explanation.comparison import comparisons, report
from benchmarks.explanation.curves import STEPS, curves_of
from benchmarks.explanation.images import ExplainedImages
from benchmarks.explanation.maps import centred_gaussian, occlusion, random_map, random_masks

SIDE = 48
MEAN = (0.5, 0.5, 0.5)
PLACE = np.s_[12:24, 30:42]


def classify(images):
    """Probabilities of two classes: the first by how much contrast there is in one place."""
    contrast = images[:, *PLACE].astype(np.float64).std(axis=(1, 2, 3)) / 20
    first = 1 / (1 + np.exp(1 - contrast))
    return np.stack([first, 1 - first], axis=1).astype(np.float32)


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)


def test_deletion_falls_and_insertion_rises_sooner_with_a_map_of_what_counts(pixels):
    truth = np.zeros((SIDE, SIDE), np.float32)
    truth[PLACE] = 1
    good, bad = (curves_of(found, classify, pixels, MEAN, seed=0) for found in (truth, -truth))
    chance = curves_of(np.zeros_like(truth), classify, pixels, MEAN, seed=0)
    for curves in (good, bad, chance):
        assert curves.deletion.shape == curves.insertion.shape == (STEPS + 1,)
        assert curves.deletion[0] == curves.insertion[-1] == classify(pixels[None])[0, 0]
    assert good.areas[0] < chance.areas[0] < bad.areas[0]
    assert good.areas[1] > chance.areas[1] > bad.areas[1]
    assert good.areas[2] == pytest.approx(good.areas[1] - good.areas[0])


def test_occlusion_finds_the_place_and_is_better_than_what_says_nothing(pixels):
    found = occlusion(classify, pixels, 0)
    assert found[PLACE].mean() > 2 * found.mean()
    masks = random_masks(classify, pixels, 0)
    assert masks[PLACE].mean() > masks.mean()
    middle = centred_gaussian(classify, pixels, 0)
    assert np.unravel_index(middle.argmax(), middle.shape) in [(23, 23), (23, 24), (24, 23), (24, 24)]
    np.testing.assert_array_equal(random_map(classify, pixels, 7), random_map(classify, pixels, 7))
    assert (random_map(classify, pixels, 7) != random_map(classify, pixels, 8)).any()


def test_better_is_less_deletion_and_more_insertion_and_groups_count_once():
    ours = np.tile([0.2, 0.8, 0.6], (12, 1))
    other = np.tile([0.3, 0.5, 0.2], (12, 1))
    groups = np.array([0] * 6 + [1, 2, 3, 4, 5, 6])
    found = comparisons({"ours": ours, "other": other}, "ours", groups)
    assert [c.difference for c in found.values()] == pytest.approx([0.1, 0.3, 0.4])
    assert {(c.groups, c.better, c.worse) for c in found.values()} == {(7, 7, 0)}
    assert all(c.p >= 2 / 2**7 * 0.8 for c in found.values())
    assert all(c.p_corrected >= c.p for c in found.values())


def test_the_report_has_its_tables(pixels):
    found = {
        name: [curves_of(make(classify, pixels, n), classify, pixels, MEAN, n) for n in range(3)]
        for name, make in {"occlusion": occlusion, "by chance": random_map}.items()
    }
    images = ExplainedImages([pixels] * 3, np.zeros(3, np.int64), np.arange(3))
    text = report(found, images, 0.5, "occlusion")
    assert "| 3 | 3 | 50.0 |" in text
    assert text.index("| occlusion | ") < text.index("| by chance | 0.")
    assert text.count("| by chance | ") == 4
    assert "# paired" not in report(found, images, 0.5, None)
