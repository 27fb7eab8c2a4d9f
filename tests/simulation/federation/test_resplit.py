"""Dealing the hospitals' images out again, part by part."""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.simulation.federation.resplit import LEAST_TEST, LEAST_TRAINING, resplit_sites
from fedmedclip.simulation.federation.virtual_sites import Images, natural_sites

PARTS = ("train", "validation", "test")


def groups_of(count):
    """Pairs at one hospital."""
    return np.arange(count) // 6 * 3 + np.arange(count) % 3


def hospitals(count=600, classes=3, seed=0):
    labels = np.random.default_rng(seed).integers(0, classes, count)
    hashes = tuple(hashlib.sha256(b"%d" % number).digest() for number in range(count))
    images = Images(labels, groups_of(count), hashes)
    return natural_sites(images, np.arange(count) % 3, ["a", "b", "c"], seed), labels


@settings(max_examples=20, deadline=None)
@given(number=st.integers(1, 8), alpha=st.sampled_from([0.5, 1.0, 1000.0]), seed=st.integers(0, 2**62))
def test_every_image_is_at_one_site_and_stays_in_its_part(number, alpha, seed):
    before, labels = hospitals()
    dealt = resplit_sites(before, labels, groups_of(len(labels)), number, alpha, seed)
    assert len(dealt.sites) == number
    assert dealt.left_out == 0
    for part in PARTS:
        after = np.concatenate([getattr(site, part) for site in dealt.sites])
        expected = np.concatenate([getattr(site, part) for site in before.sites])
        assert sorted(after.tolist()) == sorted(expected.tolist())
        of_sites = [set(groups_of(600)[getattr(site, part)]) for site in dealt.sites]
        assert sum(map(len, of_sites)) == len(set.union(*of_sites))
    assert all(len(site.train) >= LEAST_TRAINING and len(site.test) >= LEAST_TEST for site in dealt.sites)


def test_a_site_is_tested_on_the_classes_that_it_trains_on():
    before, labels = hospitals(6000)
    for site in resplit_sites(before, labels, np.arange(6000), 5, 0.3, 1).sites:
        shares = [
            np.bincount(labels[images], minlength=3) / len(images) for images in (site.train, site.test)
        ]
        assert np.allclose(*shares, atol=0.03)


def test_a_seed_and_a_number_name_the_split():
    before, labels = hospitals()
    first, again, other, six = (
        resplit_sites(before, labels, groups_of(len(labels)), number, 1.0, seed)
        for number, seed in ((5, 0), (5, 0), (5, 1), (6, 0))
    )
    assert all(np.array_equal(a.train, b.train) for a, b in zip(first.sites, again.sites, strict=True))
    assert not np.array_equal(first.sites[0].train, other.sites[0].train)
    assert not np.array_equal(first.sites[0].train, six.sites[0].train)


def test_too_many_sites_for_the_images_are_refused():
    before, labels = hospitals(100)
    with pytest.raises(InvalidInputError, match="fewer sites or a larger alpha"):
        resplit_sites(before, labels, groups_of(len(labels)), 50, 1.0, 0)
    with pytest.raises(InvalidInputError, match="alpha is 0"):
        resplit_sites(before, labels, groups_of(len(labels)), 5, 0, 0)
