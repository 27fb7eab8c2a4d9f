"""Dealing images out among virtual sites."""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.simulation.federation.virtual_sites import Images, dirichlet_sites, natural_sites


def images(count, classes=4, seed=0):
    labels = np.random.default_rng(seed).integers(0, classes, count)
    return labels, tuple(hashlib.sha256(b"%d" % number).digest() for number in range(count))


def of(labels, hashes):
    return Images(labels, np.arange(len(labels)), hashes)


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(100, 300),
    number=st.integers(1, 20),
    alpha=st.sampled_from([0.001, 0.1, 1.0, 1000.0]),
    seed=st.integers(0, 2**62),
)
def test_every_image_is_at_one_site_in_one_part_at_most(count, number, alpha, seed):
    labels, hashes = images(count)
    dealt = dirichlet_sites(of(labels, hashes), number, alpha, seed)
    used = np.concatenate([np.concatenate([s.train, s.validation, s.test]) for s in dealt.sites])
    assert len(set(used.tolist())) == len(used) <= count
    assert len(dealt.sites) + dealt.left_out == number
    assert all(len(site.train) >= 2 for site in dealt.sites)
    if dealt.left_out == 0:
        assert len(used) == count


def test_parts_are_about_70_10_20():
    labels, hashes = images(1000)
    (site,) = dirichlet_sites(of(labels, hashes), 1, 1.0, 0).sites
    assert [len(site.train), len(site.validation), len(site.test)] == pytest.approx([700, 100, 200], abs=12)


def test_alpha_sets_how_uneven_the_classes_are():
    labels, hashes = images(4000)

    def largest_share(alpha):
        sites = dirichlet_sites(of(labels, hashes), 10, alpha, 0).sites
        return np.mean([np.bincount(labels[s.train]).max() / len(s.train) for s in sites])

    assert largest_share(0.05) > 0.7
    assert largest_share(1000.0) < 0.35


def test_a_seed_names_the_split_and_the_draw():
    labels, hashes = images(500)
    first, again, other = (dirichlet_sites(of(labels, hashes), 20, 0.5, seed) for seed in (0, 0, 1))
    assert all(np.array_equal(a.train, b.train) for a, b in zip(first.sites, again.sites, strict=True))
    assert not np.array_equal(first.test, other.test)
    chosen = [[site.name for site in first.participants(3, 0, number)] for number in (1, 1, 2, 3)]
    assert chosen[0] == chosen[1] == sorted(set(chosen[0]))
    assert len({tuple(names) for names in chosen}) == 3
    assert first.participants(None, 0, 1) == first.participants(1000, 0, 1) == first.sites


def test_natural_sites_keep_their_images():
    labels, hashes = images(60)
    site_of = np.arange(60) % 3
    dealt = natural_sites(of(labels, hashes), site_of, ["a", "b", "c"], 0)
    assert [site.name for site in dealt.sites] == ["a", "b", "c"]
    for number, site in enumerate(dealt.sites):
        assert set(np.concatenate([site.train, site.validation, site.test]) % 3) == {number}


def test_ten_thousand_sites_with_few_images_leave_most_out():
    labels, hashes = images(2000)
    dealt = dirichlet_sites(of(labels, hashes), 10_000, 0.1, 0)
    assert 0 < len(dealt.sites) < 1000
    assert len(dealt.sites) + dealt.left_out == 10_000


@pytest.mark.parametrize(("number", "alpha"), [(0, 0.5), (10_001, 0.5), (3, 0.0), (3, float("nan"))])
def test_numbers_that_cannot_be_used(number, alpha):
    labels, hashes = images(50)
    with pytest.raises(InvalidInputError, match=r"give"):
        dirichlet_sites(of(labels, hashes), number, alpha, 0)


def test_too_few_images_for_anybody():
    labels, hashes = images(3)
    with pytest.raises(InvalidInputError, match="fewer sites"):
        dirichlet_sites(of(labels, hashes), 100, 1.0, 0)


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 40), min_size=30, max_size=60),
    number=st.integers(1, 6),
    seed=st.integers(0, 2**62),
)
def test_a_group_is_at_one_site_in_one_part(sizes, number, seed):
    groups = np.repeat(np.arange(len(sizes)), sizes)
    labels, hashes = images(len(groups), classes=2)
    dealt = dirichlet_sites(Images(labels, groups, hashes), number, 10.0, seed)
    held = [
        set(groups[part].tolist())
        for site in dealt.sites
        for part in (site.train, site.validation, site.test)
    ]
    assert sum(map(len, held)) == len(set.union(*held))
