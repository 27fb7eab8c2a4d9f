"""The global head: what an aggregated round is made of."""

import numpy as np
import pytest

from fedmedclip.aggregator.aggregation import Weighing
from fedmedclip.aggregator.global_head import GlobalHead
from fedmedclip.aggregator.rules.names import rule_named
from fedmedclip.aggregator.store import Store
from fedmedclip.aggregator.stored_heads import head_at
from fedmedclip.protocol.codecs import codec_named, encode_head
from fedmedclip.protocol.heads.head import HeadSpecification, TensorSpecification, head_digest
from tests.aggregator.test_store import PLAN

SPECIFICATION = HeadSpecification((TensorSpecification("weight", (20, 30), initial_bound=0.1),))


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "aggregator.db")
    start = SPECIFICATION.initial(0)
    store.begin(PLAN, SPECIFICATION.to_bytes(start), head_digest(start))
    yield store
    store.close()


@pytest.fixture
def head(store):
    return GlobalHead(store, SPECIFICATION, "lossless", 10, 1 << 17, rule_named("weighted_mean"))


def add(store, round_number, site, samples, value):
    store.admit(site, bytes(32), samples, "")
    delta = {"weight": np.full((20, 30), value, np.float32)}
    encoded = encode_head(codec_named("lossless"), delta, SPECIFICATION).data
    store.add_update(round_number, site, samples, encoded)


def step(store, head, round_number, weighting="samples"):
    before = head_at(store, SPECIFICATION, head.version)["weight"]
    head.aggregate(round_number, Weighing(weighting))
    return head_at(store, SPECIFICATION, round_number)["weight"] - before


@pytest.mark.parametrize(("weighting", "mean"), [("samples", 4.0), ("equal", 3.0)])
def test_a_round_moves_the_head_by_the_weighted_mean_of_its_updates(store, head, weighting, mean):
    add(store, 1, "site-a", 100, 1.0)
    add(store, 1, "site-b", 300, 5.0)
    assert np.allclose(step(store, head, 1, weighting), mean)


def test_late_updates_count_less_and_alone_they_make_a_smaller_step(store, head):
    for number in (1, 2):
        add(store, number, "site-a", 100, 1.0)
        step(store, head, number)
    add(store, 1, "site-c", 100, 3.0)
    add(store, 3, "site-a", 300, 1.0)
    # Two rounds late: by 1 / sqrt(3), while its weight in the mean stays 100 of 400.
    assert np.allclose(step(store, head, 3), (300 * 1.0 + 100 * 3.0 / np.sqrt(3)) / 400)
    add(store, 3, "site-c", 100, 2.0)
    assert np.allclose(step(store, head, 4), 2.0 / np.sqrt(2))
    assert store.stored_updates() == []


def test_an_announcement_says_who_trains_from_the_newest_version_and_nobody_from_earlier_ones(store, head):
    head.drawn_below = 77
    for number in (1, 2):
        add(store, number, "site-a", 100, 1.0)
        step(store, head, number)
    assert head.announcement().drawn_below == 77
    assert (head.call().payload, head.call().drawn_below) == (None, 77)
    assert [carrier.drawn_below for carrier in head.catch_up(0)] == [0, 77]
