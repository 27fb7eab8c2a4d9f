"""Options of local training that work for every trained method."""

import numpy as np
import pytest
import torch

from fedmedclip.edge_client.heads.heads import initial_private_head
from fedmedclip.edge_client.learning.layers import TorchLayers
from fedmedclip.edge_client.learning.local_only import train_alone
from fedmedclip.edge_client.learning.local_steps import class_weights, epochs
from fedmedclip.edge_client.learning.methods.facmic import METHOD
from fedmedclip.edge_client.learning.settings import TrainingSettings
from fedmedclip.edge_client.learning.settled_norms import settle
from fedmedclip.edge_client.learning.training import train_round
from fedmedclip.protocol.heads.head import head_digest
from fedmedclip.protocol.heads.shared_heads import initial_shared_head
from tests.edge_client.heads.heads_examples import CLASSES, SCALE, SIZE, example_data
from tests.edge_client.learning.tensors import tensors_of


def train(method="facmic", count=40, round_number=2, validation=None, target=None, **settings):
    embeddings, labels, captions = example_data(count, noise=0.3)
    return train_round(
        method,
        initial_shared_head(method, SIZE, 0, CLASSES),
        initial_private_head(method, SIZE, CLASSES, 0, "a"),
        embeddings,
        labels,
        captions,
        SCALE,
        TrainingSettings(batch_size=16, shared_learning_rate=5e-3, **settings),
        round_number=round_number,
        seed=1,
        validation=validation,
        target=target,
    )


def distance(trained, method="facmic"):
    start = initial_shared_head(method, SIZE, 0, CLASSES)
    weights = [name for name in start if "running" not in name]
    return sum(float(((trained.shared[name] - start[name]) ** 2).sum()) for name in weights)


@pytest.mark.parametrize("method", ["clip-adapter", "faa-clip", "facmic", "fedclip", "linear-probe"])
def test_every_method_trains_and_twice_gives_the_same_bits(method):
    target = example_data(20, seed=9)[0]
    options = {"class_balanced": True, "focal_gamma": 2.0, "gradient_clip": 1.0, "proximal_weight": 0.1}
    first, second = (train(method, target=target, **options) for _ in range(2))
    assert head_digest(first.shared) == head_digest(second.shared)
    assert np.isfinite(first.loss)
    assert "proximal" in first.loss_terms
    assert ("adaptation" in first.loss_terms) == (method in ("faa-clip", "facmic"))


def test_the_proximal_term_holds_the_head_back():
    assert distance(train(proximal_weight=100.0, local_epochs=4)) < distance(train(local_epochs=4))


def test_steps_in_place_of_epochs():
    order = np.random.default_rng(0)
    found = [list(map(len, epoch)) for epoch in epochs(order, 40, 16, 1, 7)]
    assert found == [[16, 16, 8], [16, 16, 8], [16]]
    assert [len(epoch) for epoch in epochs(order, 40, 16, 2, 0)] == [3, 3]
    assert distance(train(local_steps=1)) < distance(train(local_steps=6))


def test_early_stopping_keeps_the_best_epoch():
    embeddings, labels, _ = example_data(30, seed=4)
    wrong = embeddings, (labels + 1) % CLASSES
    stopped = train(validation=wrong, local_epochs=8, early_stopping_patience=1)
    first = train(local_epochs=1)
    assert head_digest(stopped.shared) == head_digest(first.shared)
    empty = embeddings[:0], labels[:0]
    everything = train(validation=empty, local_epochs=8, early_stopping_patience=1)
    assert head_digest(everything.shared) == head_digest(train(local_epochs=8).shared)


def test_class_weights_make_present_classes_equal():
    labels = np.array([0, 0, 0, 2])
    weights = class_weights(labels)
    assert weights.mean() == pytest.approx(1)
    assert weights[:3].sum() == pytest.approx(weights[3])


def test_site_variances_about_the_common_mean_average_to_the_variance_of_all():
    generator = np.random.default_rng(0)
    sites = [generator.normal(size=(30, SIZE)), generator.normal(size=(60, SIZE)) + 2]
    images = [torch.tensor(site, dtype=torch.float32) for site in sites]
    captions = torch.tensor(example_data()[2])
    head = tensors_of(initial_shared_head("facmic", SIZE, 0), torch.float32)
    with torch.no_grad():
        everything = TorchLayers().linear(head, "first", torch.cat(images))
    common = {"norm.running_mean": everything.mean(0).numpy()}
    variances = []
    for embeddings in images:
        settle(METHOD, head, {}, embeddings, captions, common)
        variances.append(head["norm.running_var"].clone())
    pooled = (30 * variances[0] + 60 * variances[1]) / 90
    np.testing.assert_allclose(pooled, everything.var(0), rtol=0.05)


def test_a_site_alone_trains_as_many_rounds_and_draws_what_it_would_in_a_federation():
    embeddings, labels, captions = example_data(30)
    settings = TrainingSettings(batch_size=16)
    shared, private = train_alone(embeddings, labels, captions, SCALE, settings, rounds=2, seed=3, site="a")
    assert head_digest(shared) != head_digest(initial_shared_head("fedmedclip", SIZE, 3))
    assert set(private) == set(initial_private_head("fedmedclip", SIZE, CLASSES, 3, "a"))
