"""The shared head of whitened-memory says what the evidence says: zero-shot, the discriminant, or both."""

import numpy as np
import pytest

from tests.edge_client.learning.calibration_examples import (
    DATA,
    KINDS,
    accuracies,
    captions_of,
    dealt,
    federation,
    of_discriminants,
    remaining,
)


@pytest.mark.parametrize("scale", [15.0, pytest.param(100.0, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", DATA)
def test_the_shared_head_is_neither_below_zero_shot_nor_far_below_the_discriminant(name, kind, scale):
    sizes = (30, 30, 30) if name == "wines" else (60, 60, 120)
    captions = captions_of(name, kind)
    head = federation(dealt(name, sizes), captions, scale)
    test = remaining(name, sum(sizes))
    shared, zero_shot = accuracies(head, *test, captions, scale)
    best = np.mean(of_discriminants(head, *test))
    assert shared > max(zero_shot, best) - 0.05


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_so_it_is_under_a_lossy_codec(kind):
    """In both directions, where the statistics, the marks and the evidence come over several rounds."""
    captions = captions_of("digits", kind)
    sites, test = dealt("digits", (80, 80, 80)), remaining("digits", 240)
    head = federation(sites, captions, 15.0, rounds=8, codec="lowrank")
    shared, zero_shot = accuracies(head, *test, captions, 15.0)
    whole = federation(sites, captions, 15.0)
    assert shared > max(zero_shot, np.mean(of_discriminants(whole, *test))) - 0.05


@pytest.mark.parametrize("rounds", [1, 2])
def test_a_site_alone_has_the_same_without_a_federation(rounds):
    captions = captions_of("digits", "random")
    head = federation(dealt("digits", (200,)), captions, 15.0, rounds=rounds)
    test = remaining("digits", 200)
    shared, _ = accuracies(head, *test, captions, 15.0)
    assert shared > np.mean(of_discriminants(head, *test)) - 0.05


@pytest.mark.parametrize("kind", ["right", "random"])
def test_classes_that_one_site_alone_has_and_a_site_of_ten_images(kind):
    captions = captions_of("digits", kind)
    (one, its), (other, others_labels), small = dealt("digits", (150, 150, 10))
    sites = [
        (one[its < 7], its[its < 7]),
        (other[others_labels > 3], others_labels[others_labels > 3]),
        small,
    ]
    head = federation(sites, captions, 15.0)
    test = remaining("digits", 310)
    shared, zero_shot = accuracies(head, *test, captions, 15.0)
    assert shared > max(zero_shot, np.mean(of_discriminants(head, *test))) - 0.05


@pytest.mark.parametrize("sizes", [(10,), (6, 6), pytest.param((12, 10, 8), marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["digits", "gaussians", "tumours"])
def test_few_labels_do_not_take_the_head_below_a_good_zero_shot(name, sizes):
    captions = captions_of(name, "right")
    test = remaining(name, 400)
    lost = []
    for start in range(0, 360, 60):
        head = federation(dealt(name, sizes, start), captions, 15.0)
        shared, zero_shot = accuracies(head, *test, captions, 15.0)
        lost.append(zero_shot - shared)
    assert np.mean(lost) < 0.01
    assert max(lost) < 0.06
