"""Which images are chosen for a label: each stands for some, none twice, and nothing is drawn at random."""

from itertools import combinations

import numpy as np
import pytest

from fedmedclip.edge_client.adaptation import medoids
from fedmedclip.edge_client.adaptation.medoids import choose_medoids


def clusters(count=4, each=9, seed=0):
    generator = np.random.default_rng(seed)
    centres = 10 * np.eye(count, 6)
    points = centres.repeat(each, axis=0) + generator.normal(0, 0.1, (count * each, 6))
    return points.astype(np.float32)


def chosen_of(points, number, groups=None, may=None, labelled=None):
    count = len(points)
    return choose_medoids(
        points,
        number,
        np.arange(count) if groups is None else groups,
        np.ones(count, bool) if may is None else may,
        np.zeros(count, bool) if labelled is None else labelled,
    ).tolist()


def cost(points, chosen):
    return np.linalg.norm(points[:, None] - points[chosen], axis=2).min(axis=1).sum()


def test_one_of_each_cluster_is_chosen_and_it_lies_in_the_middle():
    points = clusters()
    chosen = chosen_of(points, 4)
    assert [row // 9 for row in chosen] == [0, 1, 2, 3]
    best = min(cost(points, [a, b, c, d]) for a, b, c, d in zip(*np.arange(36).reshape(4, 9), strict=True))
    assert cost(points, chosen) <= best
    assert chosen == chosen_of(points, 4)


@pytest.mark.parametrize("seed", range(5))
def test_the_choice_is_nearly_as_good_as_the_best(seed):
    points = np.random.default_rng(seed).normal(size=(14, 3)).astype(np.float32)
    best = min(cost(points, list(rows)) for rows in combinations(range(14), 3))
    assert cost(points, chosen_of(points, 3)) <= 1.1 * best


def test_look_alikes_are_not_labelled_twice_while_there_are_others():
    points = clusters()
    # The first cluster is one patient: without groups two of it would be chosen of eight.
    groups = np.where(np.arange(36) < 9, 0, np.arange(36))
    chosen = chosen_of(points, 8, groups)
    assert len(set(groups[chosen].tolist())) == len(chosen) == 8
    together = np.arange(36) // 9
    assert [row // 9 for row in chosen_of(points, 4, together)] == [0, 1, 2, 3]
    # There are no more than four groups; then a second image of each is better than nothing.
    assert len(chosen_of(points, 6, together)) == 6


def test_what_is_labelled_stands_for_its_neighbours_already():
    points = clusters()
    labelled = np.arange(36) < 1
    assert [row // 9 for row in chosen_of(points, 3, labelled=labelled)] == [1, 2, 3]
    assert [row // 9 for row in chosen_of(points, 3, np.arange(36) // 9, labelled=labelled)] == [1, 2, 3]


def test_never_more_than_there_are_and_none_that_may_not_be_chosen():
    points = clusters(each=2)
    assert chosen_of(points, 50) == list(range(8))
    may = np.arange(8) % 2 == 0
    assert chosen_of(points, 3, may=may)
    assert set(chosen_of(points, 50, may=may)) == {0, 2, 4, 6}
    assert chosen_of(points, 50, labelled=np.arange(8) != 5) == [5]


def test_images_that_are_all_the_same_give_different_rows():
    assert len(set(chosen_of(np.ones((6, 4), np.float32), 3))) == 3


def test_of_very_many_images_an_even_part_is_compared(monkeypatch):
    monkeypatch.setattr(medoids, "COMPARED", 12)
    points = clusters()
    labelled = np.arange(36) == 1
    chosen = chosen_of(points, 3, labelled=labelled)
    assert [row // 9 for row in chosen] == [1, 2, 3]
