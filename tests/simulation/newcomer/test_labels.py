"""Which labelled images a newcomer has."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.simulation.federation.virtual_sites import VirtualSite
from fedmedclip.simulation.newcomer.labels import parse_labels, with_labels

NUMBERS = (0, 1, 2, 4, 8, "all")


@given(st.data())
@settings(max_examples=50, deadline=None)
def test_more_labels_hold_the_fewer_and_no_test_image(data):
    count = data.draw(st.integers(2, 40))
    labels = np.array(data.draw(st.lists(st.integers(0, 3), min_size=count, max_size=count)))
    groups = np.array(data.draw(st.lists(st.integers(0, 6), min_size=count, max_size=count)))
    images = np.arange(count)
    ends = sorted(data.draw(st.tuples(st.integers(0, count), st.integers(0, count))))
    site = VirtualSite("new", *np.split(images, ends))
    seed = data.draw(st.integers(0, 9))
    drawn = [with_labels(site, number, labels, groups, seed) for number in NUMBERS]
    before: set[int] = set()
    for number, newcomer in zip(NUMBERS, drawn, strict=True):
        train = set(newcomer.train.tolist())
        assert before <= train <= set(site.train.tolist())
        assert newcomer.test is site.test
        for label in set(labels[site.train].tolist()):
            there = site.train[labels[site.train] == label]
            chosen = newcomer.train[labels[newcomer.train] == label]
            wanted = len(there) if number == "all" else min(number, len(there))
            assert len(chosen) == wanted
            assert len(set(groups[chosen])) == min(wanted, len(set(groups[there])))
        before = train
    assert (len(drawn[1].validation), len(drawn[-1].validation)) == (0, len(site.validation))


def test_a_class_that_is_missing_changes_nothing_for_the_others():
    labels, groups = np.arange(60) % 3, np.arange(60)
    site = VirtualSite("new", np.arange(40), np.arange(40, 50), np.arange(50, 60))
    for number in (2, "all"):
        complete = with_labels(site, number, labels, groups, 0)
        without = with_labels(site, number, labels, groups, 0, missing=1)
        assert without.train.tolist() == [image for image in complete.train if labels[image] != 1]
        assert 1 not in labels[without.validation]
        assert without.test.tolist() == site.test.tolist()


def test_seeds_and_sites_draw_differently():
    labels, groups = np.zeros(60, dtype=np.int64), np.arange(60)
    drawn = {
        tuple(with_labels(VirtualSite(name, *[np.arange(60)] * 3), 4, labels, groups, seed).train)
        for name in ("a", "b")
        for seed in (0, 1)
    }
    assert len(drawn) == 4


def test_numbers_are_read_in_their_order():
    assert parse_labels(" all,8, 0,8,1") == [0, 1, 8, "all"]


@pytest.mark.parametrize("text", ["", "1,", "-1", "1.5", "some", "1_0", "٣", "99999999"])
def test_what_is_no_number_of_labels_is_refused(text):
    with pytest.raises(InvalidInputError, match="--labels"):
        parse_labels(text)
