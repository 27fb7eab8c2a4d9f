"""What sites say on the discriminant: of whom, of what, and how far a liar gets."""

import numpy as np
import pytest

from fedmedclip.aggregator.rules.names import rule_for
from fedmedclip.aggregator.rules.rule import in_memory
from fedmedclip.edge_client.heads.discriminant import choice_by, pooled
from fedmedclip.edge_client.heads.heads import predict_probabilities
from fedmedclip.edge_client.heads.whitening import arrived, statistics
from fedmedclip.edge_client.learning.evidence import evidence_of, marks_of, others
from fedmedclip.edge_client.learning.settings import TrainingSettings
from fedmedclip.edge_client.learning.training import train_round
from fedmedclip.protocol.codecs.error_feedback import apply_delta, change_to_send
from fedmedclip.protocol.errors import HeadError
from fedmedclip.protocol.heads.shared_heads import initial_shared_head, shared_head_specification
from tests.edge_client.learning.calibration_examples import (
    METHOD,
    accuracies,
    captions_of,
    dealt,
    embedded,
    federation,
    of_discriminants,
)


def test_sites_of_one_class_each_say_nothing_and_zero_shot_stays():
    embeddings, labels = embedded("wines")
    captions = captions_of("wines", "random")
    sites = [(embeddings[labels == label], labels[labels == label]) for label in (0, 1)]
    head = federation(sites[:1], captions, 15.0)
    shared, zero_shot = accuracies(head, embeddings, labels, captions, 15.0)
    assert pooled(head) is None
    assert shared == zero_shot


def test_a_site_takes_its_own_part_out_of_the_pooled_statistics():
    """Whatever weighs it: here the cap, which the sites do not know."""
    data = dealt("gaussians", (300, 40, 50))
    own = [statistics(*site, 4) | {"marks": marks_of(*site)} for site in data]
    weights = np.array([0.5, 0.2, 0.3])
    names = own[0].keys()
    shared = {name: sum(w * part[name] for w, part in zip(weights, own, strict=True)) for name in names}
    shared = {name: array.astype(np.float32) for name, array in shared.items()}
    for place in range(3):
        found = others(shared, own[place])
        rest = [number for number in range(3) if number != place]
        for name in ("class_sums", "class_shares", "scatter"):
            expected = sum(weights[number] * own[number][name] for number in rest) / weights[rest].sum()
            np.testing.assert_allclose(found[name], expected, atol=1e-5)
    assert others(own[0], own[0]) is None


def test_evidence_is_of_images_that_are_not_in_the_statistics():
    """Labels drawn at random: in more dimensions than images a discriminant tells its own images right."""
    embeddings, _ = embedded("digits")
    labels = np.random.default_rng(0).integers(0, 2, 90)
    sites = [(embeddings[a : a + 30], labels[a : a + 30]) for a in (0, 30, 60)]
    captions = captions_of("wines", "random")[:2]
    head = federation(sites, captions, 15.0)
    together = np.concatenate([rows for rows, _ in sites])
    assert of_discriminants(head, together, labels)[0] > 0.85
    choice = choice_by(pooled(head))
    assert choice.discriminant < 0.05, choice


def liars_head(captions, sites, lie):
    """Return the head where the last site is honest but for its evidence, which it forges in each round."""
    specification = shared_head_specification(METHOD, captions.shape[1], len(captions))
    aggregate = rule_for(METHOD, None)
    head, zero = initial_shared_head(METHOD, captions.shape[1], 0, len(captions)), {}
    residuals = [None] * len(sites)
    for number in range(1, 8):
        updates = []
        for place, (embeddings, labels) in enumerate(sites):
            trained = train_round(
                METHOD, head, {}, embeddings, labels, captions, 15.0, TrainingSettings(),
                round_number=number, seed=place,
            ).shared  # fmt: skip
            change = change_to_send(METHOD, trained, head, residuals[place], specification)
            residuals[place] = zero or {name: np.zeros_like(array) for name, array in head.items()}
            if place == len(sites) - 1:
                change["evidence"] = lie
            updates.append(in_memory(f"site-{place}", 1.0, change))
        head = apply_delta(head, aggregate(updates, specification).delta, specification)
    return head


def test_a_liar_moves_evidence_by_no_more_than_its_share_of_the_range():
    """However much it sends, and however often: the honest sites measure anew in each round."""
    captions = captions_of("gaussians", "right")
    sites = dealt("gaussians", (60,) * 5)
    specification = shared_head_specification(METHOD, *captions.shape[::-1])
    bound = next(tensor for tensor in specification.tensors if tensor.name == "evidence")
    lie = np.full(bound.shape, -0.02, np.float32)
    lie[-1] = 2.5
    lied = liars_head(captions, sites, lie)["evidence"]
    honest = liars_head(captions, sites, np.zeros(bound.shape, np.float32))["evidence"]
    share = 1 / 5
    assert np.abs(lied - honest).max() <= share / (1 - share) * bound.largest_change + 1e-6
    assert (lied >= bound.lowest).all()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_evidence_that_is_no_number_is_refused(value):
    specification = shared_head_specification(METHOD, 8, 3)
    head = initial_shared_head(METHOD, 8, 0, 3)
    head["evidence"][5] = value
    with pytest.raises(HeadError, match="'evidence' has a NaN or infinite value"):
        specification.check(head)


def test_evidence_far_out_of_range_gives_a_head_that_classifies():
    embeddings, _ = embedded("wines")
    captions = captions_of("wines", "right")
    head = federation(dealt("wines", (60, 60)), captions, 15.0)
    assert arrived(head)
    for name, value in (("evidence", 1e30), ("evidence", -1e30), ("reach", 1e30), ("reach", -1e30)):
        spoilt = head | {name: np.full_like(head[name], value)}
        found = predict_probabilities(METHOD, spoilt, None, embeddings, captions, 15.0)
        assert np.isfinite(found.shared).all()


def test_a_site_of_one_class_says_nothing():
    embeddings, labels = embedded("wines")
    one = labels == 0
    assert evidence_of(None, embeddings[one], labels[one], np.zeros((one.sum(), 3), np.float32)) is None
