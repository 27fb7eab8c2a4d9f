from itertools import product

import numpy as np
import pytest

from fedmedclip.aggregator.rules.names import rule_named
from fedmedclip.aggregator.rules.rule import in_memory
from fedmedclip.edge_client.heads.discriminant import choice_by, pooled
from fedmedclip.edge_client.heads.ensemble import softmax
from fedmedclip.edge_client.heads.heads import predict_probabilities, private_head_specification
from fedmedclip.edge_client.heads.layers import unit_rows
from fedmedclip.edge_client.heads.whitening import arrived, axes_of, statistics
from fedmedclip.edge_client.learning.methods.whitened_memory import (
    CAPACITY,
    RIDGES,
    WIDTHS,
    fit,
    most_likely_kernel,
)
from fedmedclip.edge_client.learning.settings import TrainingSettings
from fedmedclip.edge_client.learning.training import train_round
from fedmedclip.protocol.codecs import delta_codec_named
from fedmedclip.protocol.codecs.error_feedback import apply_delta, change_to_send, compress
from fedmedclip.protocol.heads.head import head_digest
from fedmedclip.protocol.heads.shared_heads import initial_shared_head, shared_head_specification
from tests.edge_client.heads.heads_examples import CLASSES, SCALE, SIZE, example_data

METHOD = "whitened-memory"
SPECIFICATION = shared_head_specification(METHOD, SIZE, CLASSES)
NOTHING = initial_shared_head(METHOD, SIZE, 0, CLASSES)


def weighted_mean(pairs, specification):
    updates = [in_memory(f"site-{place}", *pair) for place, pair in enumerate(pairs)]
    return rule_named("weighted_mean")(updates, specification).delta


def test_a_weighted_mean_of_statistics_is_that_of_all_images_within_sites():
    embeddings, labels, _ = example_data(60)
    parts = [slice(0, 20), slice(20, 60)]
    each = [NOTHING | statistics(embeddings[part], labels[part], CLASSES) for part in parts]
    pooled = weighted_mean([(20.0, each[0]), (40.0, each[1])], SPECIFICATION)
    SPECIFICATION.check(pooled)
    together = statistics(embeddings, labels, CLASSES)
    for name in ("class_sums", "class_shares"):
        np.testing.assert_allclose(pooled[name], together[name], atol=1e-6)
    assert pooled["spread"][0] == pytest.approx(np.trace(pooled["scatter"]), rel=1e-5)
    assert arrived(pooled)
    assert not arrived(NOTHING)


def test_whitening_makes_the_variation_within_classes_even():
    embeddings, labels, _ = example_data(400, noise=0.3)
    embeddings = embeddings * np.linspace(0.2, 2, SIZE, dtype=np.float32)
    found = statistics(embeddings, labels, CLASSES)
    white = statistics(axes_of(found).whitening(0.3).apply(embeddings), labels, CLASSES)
    before, after = (np.linalg.eigvalsh(each["scatter"].astype(np.float64)) for each in (found, white))
    assert after.max() / after.mean() < before.max() / before.mean() / 1.8


def test_the_memory_is_kernel_ridge_regression_in_the_whitened_space():
    embeddings, labels, captions = example_data(50, noise=0.4)
    _, private, loss = fit(NOTHING, embeddings[:40], labels[:40], captions, SCALE, seed=1)
    private_head_specification(METHOD, SIZE, CLASSES).check(private)
    z = (embeddings.astype(np.float64) - private["centre"]) @ private["transform"].astype(np.float64)
    kernel = np.exp(-((z[:, None] - z[None, :40]) ** 2).sum(2))
    targets = np.eye(CLASSES)[labels[:40]] - 1 / CLASSES
    found = predict_probabilities(METHOD, NOTHING, private, embeddings[40:], captions, SCALE)
    logits = np.log(found.private.astype(np.float64))
    logits -= logits.mean(1, keepdims=True)
    differences = []
    for ridge in RIDGES:
        scores = kernel[40:] @ np.linalg.solve(kernel[:40] + ridge * np.eye(40), targets)
        scores -= scores.mean(1, keepdims=True)
        temperature = (logits * scores).sum() / (scores**2).sum()
        differences.append(np.abs(logits - temperature * scores).max())
    assert min(differences) < 2e-2
    assert loss < np.log(CLASSES)


def test_the_kernel_is_the_one_whose_memory_of_the_other_images_tells_each_best():
    """Each image told by a memory fitted without it, at the best of a fine row of temperatures."""
    embeddings, labels, _ = example_data(25, noise=0.3)
    targets = np.eye(CLASSES)[labels] - 1 / CLASSES
    squared = ((embeddings[:, None] - embeddings[None]).astype(np.float64) ** 2).sum(2)
    losses = {}
    for width, ridge in product(WIDTHS, RIDGES):
        kernel, scores = np.exp(-width * squared), []
        for left_out in range(25):
            rest = np.arange(25) != left_out
            solved = np.linalg.solve(kernel[np.ix_(rest, rest)] + ridge * np.eye(24), targets[rest])
            scores.append(kernel[left_out, rest] @ solved)
        losses[width, ridge] = min(
            -np.log(softmax(temperature * np.array(scores))[np.arange(25), labels]).mean()
            for temperature in np.geomspace(1, 64, 25)
        )
    assert most_likely_kernel(embeddings, labels, CLASSES) == min(losses, key=losses.get)


def test_an_image_unlike_all_others_is_left_to_zero_shot():
    embeddings, labels, captions = example_data(200, noise=0.2)
    captions = unit_rows(captions + np.roll(captions, 1, axis=0) / 2)
    shared, _, _ = fit(NOTHING, embeddings, labels, captions, SCALE, seed=0)
    factor = choice_by(pooled(shared)).alone
    near = predict_probabilities(METHOD, shared, None, embeddings, captions, SCALE)
    far = predict_probabilities(METHOD, shared, None, -3 * embeddings, captions, SCALE)
    assert np.abs(near.shared - near.zero_shot).max() > 0.01
    expected = softmax(factor * SCALE * (-3 * embeddings @ captions.T))
    np.testing.assert_allclose(far.shared, expected, atol=1e-5)


def test_version_0_and_a_class_that_nobody_has():
    embeddings, labels, captions = example_data(40)
    zero = predict_probabilities(METHOD, NOTHING, None, embeddings, captions, SCALE)
    np.testing.assert_allclose(zero.shared, zero.zero_shot, atol=1e-6)
    present = labels != 2
    shared, private, _ = fit(NOTHING, embeddings[present], labels[present], captions, SCALE, seed=0)
    found = predict_probabilities(METHOD, shared, private, embeddings, captions, SCALE)
    assert np.isfinite(found.ensemble).all()


def test_a_memory_that_is_full_keeps_every_class():
    labels = np.zeros(CAPACITY + 300, dtype=np.int64)
    labels[:5] = 1
    embeddings = np.random.default_rng(0).normal(size=(len(labels), 4)).astype(np.float32)
    shared = initial_shared_head(METHOD, 4, 0, 2)
    _, private, _ = fit(shared, embeddings, labels, np.eye(2, 4, dtype=np.float32), SCALE, seed=0)
    for row in embeddings[:5]:
        distances = np.abs(private["keys"] - (row - private["centre"]) @ private["transform"]).max(axis=1)
        assert distances.min() < 1e-4


def test_lossy_rounds_end_at_the_statistics_of_all_sites():
    """Each site owes its statistics once; what a codec left out of them is all that follows."""
    data = [example_data(count, seed=count, noise=0.3) for count in (30, 50)]
    codec, head = delta_codec_named("int8"), dict(NOTHING)
    residuals, memories = [None, None], [b"", b""]
    for number in range(1, 7):
        updates = []
        for site, (embeddings, labels, captions) in enumerate(data):
            trained = train_round(
                METHOD, head, {}, embeddings, labels, captions, SCALE, TrainingSettings(),
                round_number=number, seed=site,
            )  # fmt: skip
            change = change_to_send(METHOD, trained.shared, head, residuals[site], SPECIFICATION)
            sent = compress(codec, change, residuals[site], memories[site], SPECIFICATION)
            residuals[site], memories[site] = sent.residual, sent.memory
            updates.append((float(len(labels)), sent.decoded))
        head = apply_delta(head, weighted_mean(updates, SPECIFICATION), SPECIFICATION)
    own = [NOTHING | statistics(embeddings, labels, CLASSES) for embeddings, labels, _ in data]
    pooled = weighted_mean([(30.0, own[0]), (50.0, own[1])], SPECIFICATION)
    assert arrived(head)
    for name in ("class_sums", "class_shares", "scatter", "spread"):
        array = pooled[name]
        np.testing.assert_allclose(head[name], array, atol=0.02 * np.abs(array).max() + 1e-3)


def test_same_input_same_bits():
    embeddings, labels, captions = example_data(40)
    first, second = (fit(NOTHING, embeddings, labels, captions, SCALE, seed=3) for _ in range(2))
    assert head_digest(first[0]) == head_digest(second[0])
    assert head_digest(first[1]) == head_digest(second[1])


@pytest.mark.parametrize("seed", range(4))
def test_shares_of_classes_arrive_whole_through_a_coarse_codec(seed):
    """Also the small ones, which a coarse delta makes negative on the way."""
    embeddings, _, _ = example_data(100)
    rare = [1 - 0.02 * (CLASSES - 1)] + [0.02] * (CLASSES - 1)
    labels = np.random.default_rng(seed).choice(CLASSES, 100, p=rare)
    codec, shared, residual, memory = delta_codec_named("lowrank:rank=1"), NOTHING, None, b""
    truth = NOTHING | statistics(embeddings, labels, CLASSES)
    for _ in range(12):
        delta = change_to_send(METHOD, truth, shared, residual, SPECIFICATION)
        sent = compress(codec, delta, residual, memory, SPECIFICATION)
        shared = apply_delta(shared, sent.decoded, SPECIFICATION)
        residual, memory = sent.residual, sent.memory
    np.testing.assert_allclose(shared["class_shares"], truth["class_shares"], atol=0.02)
