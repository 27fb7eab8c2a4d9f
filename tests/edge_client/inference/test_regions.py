"""Occlusion finds what a classifier looks at, says how much that is, and keeps to its time."""

import numpy as np
import pytest

from fedmedclip.edge_client.inference.regions import CELLS, SCALES, log_probability, regions_of

SIDE = 64
CELL = SIDE // CELLS


def checkered(row, column):
    """An image that is grey but for one cell, whose pixels alternate: blur takes them away."""
    pixels = np.full((SIDE, SIDE, 3), 128, np.uint8)
    y, x = np.mgrid[:CELL, :CELL]
    pixels[row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL] = (
        255 * ((y + x) % 2)[..., None]
    ).astype(np.uint8)
    return pixels


def by_contrast(images):
    """Probabilities of two classes; the first is sure by the contrast that the image has."""
    contrast = images.astype(np.float64).std(axis=(1, 2, 3)) / 10
    first = 1 / (1 + np.exp(-contrast))
    return np.stack([first, 1 - first], axis=1).astype(np.float32)


@pytest.mark.parametrize("cell", [(0, 0), (2, 5), (7, 7)])
def test_the_cell_that_the_answer_hangs_on_carries_most(cell):
    found = regions_of(by_contrast, checkered(*cell))
    assert found.map.shape == (CELLS, CELLS)
    assert found.map.dtype == np.float32
    assert np.unravel_index(found.map.argmax(), found.map.shape) == cell
    assert found.map.max() == 1
    assert found.map.min() == 0
    assert found.largest_loss > 0.1
    assert found.kind == "occlusion, 3 x 3, 7 x 7 patches"
    smooth = found.in_pixels(SIDE, 2 * SIDE)
    assert smooth.shape == (SIDE, 2 * SIDE)
    assert smooth.argmax() // (2 * SIDE) // CELL == cell[0]


def test_where_covering_changes_nothing_the_map_is_empty():
    found = regions_of(by_contrast, np.full((SIDE, SIDE, 3), 77, np.uint8))
    assert found.largest_loss == 0
    assert not found.map.any()


def test_what_speaks_against_the_answer_carries_nothing_of_it():
    def against(images):
        return by_contrast(images) * np.float32(0.4) + np.float32([0, 0.6])

    pixels = checkered(3, 3)
    assert against(pixels[None])[0].argmax() == 1
    assert regions_of(against, pixels).map[3, 3] == 0


def test_scales_that_would_end_too_late_are_left_out():
    pixels = checkered(1, 6)
    coarse = regions_of(by_contrast, pixels, seconds=0)
    assert coarse.kind == "occlusion, 3 x 3 patches"
    assert coarse.map[:4, 4:].max() == 1
    np.testing.assert_array_equal(coarse.map, regions_of(by_contrast, pixels, scales=SCALES[:1]).map)
    np.testing.assert_array_equal(
        regions_of(by_contrast, pixels, seconds=1e6).map, regions_of(by_contrast, pixels).map
    )


def test_sides_need_not_be_multiples_of_the_cells_nor_equal():
    pixels = np.random.default_rng(0).integers(0, 256, (13, 30, 3), dtype=np.uint8)
    before = pixels.copy()
    assert regions_of(by_contrast, pixels).map.max() == 1
    np.testing.assert_array_equal(pixels, before)


def test_the_logarithm_tells_answers_apart_that_are_1_in_float32():
    sure = np.array([[1, 1e-9], [1, 1e-10], [0.5, 0.5], [0, 1]], np.float32)
    found = log_probability(sure, 0)
    np.testing.assert_allclose(found[:3], [-1e-9, -1e-10, np.log(0.5)], rtol=1e-6)
    assert np.isfinite(found).all()
