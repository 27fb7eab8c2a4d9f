"""The method from end to end: federations of a few lines, newcomers, and whoever has next to nothing."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmedclip.edge_client.heads import layers
from fedmedclip.edge_client.heads.heads import predict_probabilities, private_head_specification
from fedmedclip.edge_client.heads.layers import unit_rows
from fedmedclip.edge_client.learning.methods.one_message import shared_statistics
from fedmedclip.edge_client.learning.own_folds import DISCRIMINANT_FACTORS, ZERO_SHOT_FACTORS
from fedmedclip.edge_client.learning.own_head import (
    ADAPTED,
    CAPACITY,
    CAUTION,
    FEDERATION,
    SEPARATED,
    ZERO_SHOT,
    adapt,
    private_pass,
)
from fedmedclip.edge_client.learning.own_images import OwnImages
from fedmedclip.edge_client.learning.settings import TrainingSettings
from fedmedclip.edge_client.learning.training import train_round
from fedmedclip.protocol.heads.head import head_digest
from fedmedclip.protocol.heads.shared_heads import initial_shared_head, shared_head_specification

METHOD, SIZE, CLASSES, SCALE = "one-message", 24, 4, 12.7
SPECIFICATION = shared_head_specification(METHOD, SIZE, CLASSES)
NOTHING = initial_shared_head(METHOD, SIZE, 0, CLASSES)
CAPTIONS = unit_rows(np.random.default_rng(0).normal(size=(CLASSES, SIZE)).astype(np.float32))
# What images look like is not quite what texts say.
CENTRES = CAPTIONS + 0.2 * np.random.default_rng(1).normal(size=CAPTIONS.shape)


def images(seed, count=90, shift=0.0, noise=0.35, centres=CENTRES):
    """Unit embeddings (N, D) and labels of a site, whose scanner moves them towards the first class."""
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, CLASSES, count)
    rows = centres[labels] + noise * draw.normal(size=(count, SIZE)) + shift * CAPTIONS[0]
    return unit_rows(rows.astype(np.float32)), labels


def pooled(*sites):
    """The shared head of sites (embeddings, labels), each weighed by its images."""
    said = [
        shared_statistics(NOTHING, OwnImages.of(*site), CAPTIONS, SCALE, seed)
        for seed, site in enumerate(sites)
    ]
    weights = np.array([len(labels) for _, labels in sites], float)
    return {
        name: np.average([each[name] for each in said], axis=0, weights=weights).astype(np.float32)
        for name in NOTHING
    }


SITES = [images(seed, shift=shift) for seed, shift in ((1, 0.0), (2, -0.2), (3, 0.2))]
SHARED = pooled(*SITES)


def discriminant_alone():
    """Evidence that only the discriminant is worth anything, at its largest factor."""
    figures = np.full((len(ZERO_SHOT_FACTORS), len(DISCRIMINANT_FACTORS)), -0.1, np.float32)
    figures[:, -1] = 0.1
    return figures.ravel()


def made_of(embeddings, labels=None, shared=SHARED, **options):
    own = OwnImages.of(embeddings, labels)
    return adapt(shared, replace(own, **options), CAPTIONS, SCALE, 5)


def answers(private, embeddings):
    return private_pass(layers, private, embeddings).argmax(axis=1)


def accuracy(private, site):
    return float((answers(private, site[0]) == site[1]).mean())


def as_it_came(site, shared=SHARED):
    found = predict_probabilities(METHOD, shared, None, site[0], CAPTIONS, SCALE)
    return tuple(float((rows.argmax(axis=1) == site[1]).mean()) for rows in (found.shared, found.zero_shot))


def test_statistics_are_the_specification_and_are_pooled_to_those_of_all():
    SPECIFICATION.check(SHARED)
    whole = shared_statistics(
        NOTHING, OwnImages.of(*map(np.concatenate, zip(*SITES, strict=True))), CAPTIONS, SCALE, 0
    )
    for name in ("class_shares", "class_sums"):
        np.testing.assert_allclose(SHARED[name], whole[name], atol=1e-6)
    np.testing.assert_array_equal(SHARED["scatter"], SHARED["scatter"].T)


def test_training_says_the_same_in_every_round_and_leaves_the_private_head_alone():
    embeddings, labels = SITES[0]
    own = {"anything": np.ones(1, np.float32)}
    rounds = [
        train_round(
            METHOD, shared, own, embeddings, labels, CAPTIONS, SCALE, TrainingSettings(),
            round_number=number, seed=4,
        )
        for number, shared in ((1, NOTHING), (2, SHARED))
    ]  # fmt: skip
    assert head_digest(rounds[0].shared) == head_digest(rounds[1].shared)
    assert all(trained.private is own for trained in rounds)


def test_a_scanner_of_its_own_is_adapted_to_without_labels():
    new, later = images(8, 120, shift=0.9), images(9, 400, shift=0.9)
    found = made_of(new[0])
    assert (found.kept, found.labels) == (ADAPTED, 0)
    assert found.separation > SEPARATED
    private_head_specification(METHOD, SIZE, CLASSES).check(found.private)
    federation, zero_shot = as_it_came(later)
    assert accuracy(found.private, later) > max(federation, zero_shot) + 0.05
    assert found.shares.sum() == pytest.approx(1)


def test_where_classes_collapse_the_gaussians_are_not_believed():
    middle = CENTRES.mean(axis=0)
    together, _ = images(8, 150, centres=middle + (CENTRES - middle) / 3)
    found = made_of(together)
    assert found.separation < SEPARATED
    assert found.kept == CAUTION
    # The same where zero-shot is worth nothing: the federation's head as it came.
    useless = SHARED | {"evidence": discriminant_alone()}
    assert made_of(together, None, useless).kept == FEDERATION
    # Also with so few images that nothing can be said.
    assert made_of(together[:1]).kept == ADAPTED


def test_a_class_without_labels_at_a_site_keeps_the_federations_part():
    new, later = images(8, 150, shift=0.9), images(9, 400, shift=0.9)
    labels = np.where(new[1] == 2, -1, new[1])
    found = made_of(new[0], labels)
    unseen = later[1] == 2
    without = made_of(new[0]).private
    recall, before = ((answers(head, later[0])[unseen] == 2).mean() for head in (found.private, without))
    assert recall >= before - 0.1
    assert recall > 0.7
    alone = made_of(new[0], labels, NOTHING).private
    assert recall > (answers(alone, later[0])[unseen] == 2).mean() + 0.1


def test_own_labels_teach_what_nobody_else_can_know():
    """Two classes that look the other way round here."""
    swapped = np.array([0, 1, 3, 2])
    new, later = images(8, 200), images(9, 300)
    taught = made_of(new[0], swapped[new[1]]).private
    assert accuracy(taught, (later[0], swapped[later[1]])) > 0.8
    assert accuracy(made_of(new[0]).private, (later[0], swapped[later[1]])) < 0.6


def test_what_a_site_has_sent_is_taken_out_before_it_adapts():
    """As if it had never sent anything, but for what float32 and marks leave."""
    embeddings, labels = SITES[0]
    shown = np.ones(len(labels), dtype=np.bool_)
    member = made_of(embeddings, labels, shown=shown)
    stranger = made_of(embeddings, labels, pooled(*SITES[1:]))
    assert member.kept == stranger.kept
    agreed = (answers(member.private, embeddings) == answers(stranger.private, embeddings)).mean()
    assert agreed > 0.97
    assert member.offset == pytest.approx(stranger.offset, abs=0.03)


def test_a_site_alone_and_version_0_have_zero_shot_and_the_own_labels():
    embeddings, labels = images(4, 90)
    alone = shared_statistics(NOTHING, OwnImages.of(embeddings, labels), CAPTIONS, SCALE, 0)
    for shared, shown in ((alone, True), (NOTHING, False)):
        found = made_of(embeddings, labels, shared, shown=np.full(90, shown))
        assert (found.separation, found.offset) == (None, None)
        assert accuracy(found.private, images(9, 300)) > 0.9
    found = made_of(embeddings, None, NOTHING)
    assert found.kept == ZERO_SHOT
    zero_shot = (embeddings @ CAPTIONS.T).argmax(axis=1)
    np.testing.assert_array_equal(answers(found.private, embeddings), zero_shot)


def test_a_full_memory_and_the_same_bits_again():
    embeddings, labels = images(4, CAPACITY + 50)
    first, second = (made_of(embeddings, labels).private for _ in range(2))
    assert head_digest(first) == head_digest(second)
    assert (np.abs(first["corrections"]).sum(axis=1) > 0).sum() in (0, CAPACITY)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_next_to_no_images_leave_the_head_close_to_the_federations(count):
    later = images(9, 300)
    found = made_of(*(part[:count] for part in images(8)))
    assert accuracy(found.private, later) > as_it_came(later)[0] - 0.05


@given(st.integers(1, 3), st.integers(1, 4), st.integers(0, 9), st.integers(0, 999))
@settings(max_examples=30, deadline=None)
def test_whatever_lies_at_a_site_gives_finite_heads(classes, size, count, seed):
    draw = np.random.default_rng(seed)
    captions = unit_rows(draw.normal(size=(classes, size)).astype(np.float32))
    nothing = initial_shared_head(METHOD, size, 0, classes)
    said = OwnImages.of(
        unit_rows(draw.normal(size=(12, size)).astype(np.float32)), draw.integers(0, classes, 12)
    )
    shared = shared_statistics(nothing, said, captions, SCALE, seed)
    shared_head_specification(METHOD, size, classes).check(shared)
    rows = unit_rows(draw.normal(size=(count, size)).astype(np.float32))
    rows[: count // 2] = rows[:1]
    labels = draw.integers(-1, classes, count)
    for version in (nothing, shared):
        found = adapt(version, OwnImages.of(rows, labels), captions, SCALE, seed)
        private_head_specification(METHOD, size, classes).check(found.private)
        assert np.isfinite(found.shares).all()
        told = predict_probabilities(METHOD, version, found.private, said.embeddings, captions, SCALE)
        assert np.isfinite(told.ensemble).all()
