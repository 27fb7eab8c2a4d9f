"""Options of local training that work for every trained method."""

import numpy as np
import pytest
import torch

from fedmedclip.edge_client.heads.heads import initial_private_head
from fedmedclip.edge_client.learning.layers import TorchLayers
from fedmedclip.edge_client.learning.local_only import train_alone
from fedmedclip.edge_client.learning.local_steps import batches, class_weights, epochs
from fedmedclip.edge_client.learning.methods.facmic import METHOD
from fedmedclip.edge_client.learning.private_state import (
    head_of,
    initial_private_state,
    private_state_specification,
)
from fedmedclip.edge_client.learning.settings import TrainingSettings
from fedmedclip.edge_client.learning.settled_norms import settle
from fedmedclip.edge_client.learning.training import train_round
from fedmedclip.protocol.heads.head import head_digest
from fedmedclip.protocol.heads.shared_heads import initial_shared_head
from tests.edge_client.heads.heads_examples import CLASSES, SCALE, SIZE, example_data
from tests.edge_client.learning import reference_methods as reference
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


def test_a_last_batch_that_is_smaller_can_be_left_out():
    order = np.random.default_rng(0)
    assert [list(map(len, epoch)) for epoch in epochs(order, 40, 16, 1, 3, drop_last=True)] == [
        [16, 16],
        [16],
    ]
    assert [len(batch) for batch in batches(np.arange(33), 16, drop_last=True)] == [16, 16]
    assert [len(batch) for batch in batches(np.arange(9), 16, drop_last=True)] == [9]
    assert np.isfinite(train(drop_last=True).loss)


def whole_batch_rounds(rounds, epochs_each, **settings):
    """The shared head of a linear probe and what is kept, after rounds of steps on all images at once."""
    embeddings, labels, captions = example_data(40, noise=0.3)
    chosen = TrainingSettings(
        batch_size=64, local_epochs=epochs_each, learning_rate_decay=1.0, weight_decay=0.2, **settings
    )
    shared = initial_shared_head("linear-probe", SIZE, 0, CLASSES)
    kept = initial_private_state("linear-probe", SIZE, CLASSES, chosen, 0, "a")
    for number in range(1, rounds + 1):
        trained = train_round(
            "linear-probe", shared, kept, embeddings, labels, captions, SCALE, chosen,
            round_number=number, seed=1,
        )  # fmt: skip
        shared, kept = trained.shared, trained.private
    return shared, kept


def adam(steps, coupled):
    """Kingma and Ba 2015, algorithm 1, and Loshchilov and Hutter 2019, algorithm 2, on the same loss."""
    rows, labels, _ = example_data(40, noise=0.3)
    rows, settings = rows.astype(np.float64), TrainingSettings()
    weights = {"classifier.weight": np.zeros((CLASSES, SIZE)), "classifier.bias": np.zeros(CLASSES)}
    first, second = ({name: 0.0 * array for name, array in weights.items()} for _ in range(2))
    for step in range(1, steps + 1):
        logits = SCALE * reference.linear(weights, "classifier", rows)
        wrong = SCALE * (reference.softmax(logits) - np.eye(CLASSES)[labels]) / len(labels)
        gradients = {"classifier.weight": wrong.T @ rows, "classifier.bias": wrong.sum(0)}
        for name, gradient in gradients.items():
            if coupled:
                gradient = gradient + 0.2 * weights[name]
            else:
                weights[name] = weights[name] * (1 - settings.shared_learning_rate * 0.2)
            first[name] = settings.beta1 * first[name] + (1 - settings.beta1) * gradient
            second[name] = settings.beta2 * second[name] + (1 - settings.beta2) * gradient**2
            mean = first[name] / (1 - settings.beta1**step)
            deviation = np.sqrt(second[name] / (1 - settings.beta2**step)) + settings.epsilon
            weights[name] = weights[name] - settings.shared_learning_rate * mean / deviation
    return weights


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_the_optimiser_is_the_formula_and_goes_on_over_rounds_where_its_state_is_kept(optimizer):
    expected = adam(30, coupled=optimizer == "adam")
    for rounds in (1, 3):
        found, _ = whole_batch_rounds(rounds, 30 // rounds, optimizer=optimizer, keep_optimizer_state=True)
        for name, weights in expected.items():
            np.testing.assert_allclose(found[name], weights, atol=2e-5)
    afresh, kept = whole_batch_rounds(3, 10, optimizer=optimizer)
    assert kept == {}
    assert np.abs(afresh["classifier.bias"] - expected["classifier.bias"]).max() > 1e-4
    other = adam(30, coupled=optimizer != "adam")
    assert np.abs(other["classifier.weight"] - expected["classifier.weight"]).max() > 2e-4


@pytest.mark.parametrize("method", ["faa-clip", "fedmedclip"])
def test_what_the_optimiser_remembers_goes_through_storage_with_the_same_bits(method):
    """The discriminator without a target has not moved: there is nothing to remember of it."""
    settings = TrainingSettings(batch_size=16, keep_optimizer_state=True)
    specification = private_state_specification(method, SIZE, CLASSES, settings)
    data = *example_data(40, noise=0.3), SCALE, settings
    start = initial_shared_head(method, SIZE, 0, CLASSES)
    kept = initial_private_state(method, SIZE, CLASSES, settings, 0, "a")
    first = initial_private_head(method, SIZE, CLASSES, 0, "a")
    assert head_digest(head_of(kept)) == head_digest(first)
    one = train_round(method, start, kept, *data, round_number=1, seed=1)
    stored = specification.from_bytes(specification.to_bytes(one.private))
    assert head_digest(stored) == head_digest(one.private)
    steps = {name: array[0] for name, array in stored.items() if name.endswith(".steps")}
    assert {count for name, count in steps.items() if ".shared." in name} == {3}
    assert {count for name, count in steps.items() if ".private." in name} == {3 * (method == "fedmedclip")}
    two = [
        train_round(method, one.shared, private, *data, round_number=2, seed=2)
        for private in (one.private, stored)
    ]
    assert head_digest(two[0].shared | two[0].private) == head_digest(two[1].shared | two[1].private)


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
