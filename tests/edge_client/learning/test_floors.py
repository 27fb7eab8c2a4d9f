"""How few images may speak: what floors leave out, and that it cannot be seen in what is shared."""

import numpy as np
import pytest

from fedmedclip.edge_client.heads.heads import initial_private_head
from fedmedclip.edge_client.heads.whitening import statistics
from fedmedclip.edge_client.learning.floors import DEFAULT_FLOORS, NO_FLOORS, Floors, train_within
from fedmedclip.edge_client.learning.settings import TrainingSettings
from fedmedclip.edge_client.learning.training import train_round
from fedmedclip.protocol.heads.shared_heads import initial_shared_head

SIZE, CLASSES = 6, 3
DRAW = np.random.default_rng(0)


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def site(*counts):
    labels = np.repeat(np.arange(len(counts)), counts)
    return unit(DRAW.normal(size=(len(labels), SIZE))), labels


def train_at(method, floors, embeddings, labels):
    shared = initial_shared_head(method, SIZE, 1, CLASSES)
    private = initial_private_head(method, SIZE, CLASSES, 1, "site-a")
    captions = unit(np.random.default_rng(1).normal(size=(CLASSES, SIZE)))

    def train(rows, of_rows, _):
        return train_round(
            method, shared, private, rows, of_rows, captions, 10.0, TrainingSettings(), round_number=1, seed=4
        )

    return train_within(floors, method, embeddings, labels, train)


def test_a_class_of_few_images_is_left_out_of_shared_statistics_and_kept_in_the_private_head():
    embeddings, labels = site(40, 30, 7)
    found = train_at("whitened-memory", DEFAULT_FLOORS, embeddings, labels)
    frequent = labels < 2
    expected = statistics(embeddings[frequent], labels[frequent], CLASSES)
    for name, array in expected.items():
        np.testing.assert_array_equal(found.shared[name], array)
    assert not found.shared["class_sums"][2].any()
    alone = train_at("whitened-memory", NO_FLOORS, embeddings, labels)
    for name, array in alone.private.items():
        np.testing.assert_array_equal(found.private[name], array)
    assert alone.shared["class_shares"][2] > 0


def test_other_images_of_the_rare_class_change_no_bit_of_what_is_shared():
    embeddings, labels = site(40, 30, 7)
    others = np.where((labels == 2)[:, None], unit(DRAW.normal(size=embeddings.shape)), embeddings)
    one, other = (train_at("whitened-memory", DEFAULT_FLOORS, rows, labels) for rows in (embeddings, others))
    assert all(np.array_equal(one.shared[name], other.shared[name]) for name in one.shared)


def test_what_is_trained_is_trained_on_all_images():
    embeddings, labels = site(40, 30, 7)
    assert DEFAULT_FLOORS.shared_images("fedmedclip", labels).all()
    one, other = (
        train_at("fedmedclip", floors, embeddings, labels) for floors in (DEFAULT_FLOORS, NO_FLOORS)
    )
    assert all(np.array_equal(one.shared[name], other.shared[name]) for name in one.shared)


@pytest.mark.parametrize(
    ("method", "counts", "reason"),
    [
        ("fedmedclip", (32, 32, 0), ""),
        ("fedmedclip", (32, 31, 0), "this site has 63 training images, fewer than its least_images = 64"),
        ("whitened-memory", (57, 7, 7), "at least 8 training images have 57 together"),
        ("whitened-memory", (56, 8, 7), ""),
    ],
)
def test_a_site_of_few_images_keeps_its_update(method, counts, reason):
    found = DEFAULT_FLOORS.reason_to_keep(method, site(*counts)[1])
    assert reason in found
    assert bool(found) == bool(reason)


def test_a_site_whose_classes_are_all_rare_trains_and_sends_nothing():
    embeddings, labels = site(7, 7, 7)
    floors = Floors(least_images=2)
    assert train_at("whitened-memory", floors, embeddings, labels).private["evidence"].any()
    assert floors.reason_to_keep("whitened-memory", labels)


def test_the_floors_are_said_in_words():
    labels = site(40, 3, 0)[1]
    lines = DEFAULT_FLOORS.lines(labels, ["glioma", "cyst", "none"])
    assert lines == [
        "class 'cyst' has 3 training images, fewer than least_images_per_class = 8: it is left out of shared "
        "statistics of classes",
        "this site has 43 training images, fewer than its least_images = 64: it trains its private head, and "
        "sends no update",
    ]
    assert DEFAULT_FLOORS.lines(site(40, 40, 0)[1], ["glioma", "cyst", "none"]) == []
    lowered = Floors(least_images=20).lines(labels[:40], ["glioma", "cyst", "none"])
    assert lowered == [
        "[privacy] least_images is 20, below the usual 64: what this site sends tells more of single images"
    ]
