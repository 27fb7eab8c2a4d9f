"""DP-SGD: what one image or patient can move, the noise that is added, and what stays out of the update."""

import numpy as np
import pytest
import torch

from fedmedclip.edge_client.heads.heads import initial_private_head
from fedmedclip.edge_client.heads.method import site_method
from fedmedclip.edge_client.learning.layers import TorchLayers
from fedmedclip.edge_client.learning.losses import classification_loss
from fedmedclip.edge_client.learning.method import trainable_method
from fedmedclip.edge_client.learning.private_gradients import ClippedSums
from fedmedclip.edge_client.learning.private_round import PrivateSteps, train_shared_privately
from fedmedclip.edge_client.learning.settings import TrainingSettings
from fedmedclip.edge_client.learning.training import tensors_of
from fedmedclip.edge_client.privacy.noise import SecretNoise
from fedmedclip.protocol.heads.shared_heads import initial_shared_head, shared_head_specification
from tests.edge_client.heads.heads_examples import CLASSES, SCALE, SIZE, example_data

METHODS = ["clip-adapter", "faa-clip", "facmic", "fedclip", "fedmedclip", "linear-probe"]
COUNT = 70
# Shorter than any gradient here.
CLIP = 2e-3
EMBEDDINGS, LABELS, CAPTIONS = example_data(COUNT, seed=2)


def head_of(method):
    specification = shared_head_specification(method, SIZE, CLASSES)
    return tensors_of(initial_shared_head(method, SIZE, 3, CLASSES), specification)


def sums_of(method, members, clip_norm=CLIP, embeddings=EMBEDDINGS, labels=LABELS):
    return ClippedSums(
        site_method(method), torch.tensor(embeddings), torch.tensor(labels), members,
        torch.tensor(CAPTIONS), SCALE, clip_norm,
    )  # fmt: skip


def length(arrays):
    return float(torch.cat([array.double().flatten() for array in arrays.values()]).norm())


def difference(one, other):
    return length({name: one[name] - other[name] for name in one})


@pytest.mark.parametrize("method", METHODS)
def test_removing_an_image_moves_the_sum_by_the_clip_norm_at_most(method):
    head, everyone = head_of(method), np.arange(COUNT)
    sums = sums_of(method, everyone)
    whole = sums.of(head, everyone)
    moved = [difference(whole, sums.of(head, np.delete(everyone, i))) for i in (0, 31, 32, COUNT - 1)]
    assert max(moved) <= CLIP * 1.001
    # The bound is reached: these gradients are longer than it.
    assert max(moved) > CLIP * 0.999


def test_removing_a_patient_with_many_images_moves_it_no_more():
    # One has more images than are looked at together.
    members = np.sort(np.concatenate([np.zeros(40), np.ones(5), np.arange(2, 27)])).astype(np.int64)
    sums = sums_of("fedmedclip", members)
    head, everyone = head_of("fedmedclip"), np.arange(27)
    whole = sums.of(head, everyone)
    for patient in (0, 1, 26):
        assert difference(whole, sums.of(head, np.delete(everyone, patient))) <= CLIP * 1.001


@pytest.mark.parametrize("method", METHODS)
def test_short_gradients_add_up_to_that_of_the_whole(method):
    head = head_of(method)
    found = sums_of(method, np.arange(COUNT), clip_norm=1e6).of(head, np.arange(COUNT))
    _, logits = site_method(method).shared_pass(
        TorchLayers(training=False), head, torch.tensor(EMBEDDINGS), torch.tensor(CAPTIONS), SCALE
    )
    (COUNT * classification_loss(logits, torch.tensor(LABELS))).backward()
    for name, array in found.items():
        torch.testing.assert_close(array, head[name].grad, rtol=1e-3, atol=1e-4)


def test_an_image_whose_gradient_is_no_number_adds_nothing():
    broken = EMBEDDINGS.copy()
    broken[3] = np.nan
    found = sums_of("fedclip", np.arange(COUNT), embeddings=broken).of(head_of("fedclip"), np.arange(COUNT))
    others = sums_of("fedclip", np.arange(COUNT)).of(head_of("fedclip"), np.delete(np.arange(COUNT), 3))
    assert difference(found, others) < 1e-5


def trained(method, noise_multiplier, rows=slice(None), key=b"k" * 32, target=None, **settings):
    return train_shared_privately(
        trainable_method(method),
        initial_shared_head(method, SIZE, 3, CLASSES),
        EMBEDDINGS[rows],
        LABELS[rows],
        CAPTIONS,
        SCALE,
        TrainingSettings(**settings),
        PrivateSteps(np.arange(len(LABELS[rows])), 0.5, 1.0, noise_multiplier, COUNT, SecretNoise(key)),
        round_number=1,
        target=target,
    )


def test_a_round_is_the_same_bytes_under_the_same_key_and_others_under_another():
    once, again, other = (trained("fedmedclip", 1.0, key=key) for key in (b"k" * 32, b"k" * 32, b"o" * 32))
    assert all(np.array_equal(once[name], again[name]) for name in once)
    assert not np.array_equal(once["first.weight"], other["first.weight"])


def test_noise_has_the_stated_scale(monkeypatch):
    """No image takes part, so that each step's gradient is the noise alone."""
    drawn = []
    monkeypatch.setattr(
        torch.optim.AdamW, "step", lambda self: drawn.extend(w.grad for w in self.param_groups[0]["params"])
    )
    trained("fedclip", 3.0, rows=slice(0, 0))
    values = torch.cat([array.flatten() for array in drawn]) * 0.5 * COUNT
    assert len(values) > 500
    assert float(values.std()) == pytest.approx(3.0, rel=0.1)
    assert abs(float(values.mean())) < 0.4


@pytest.mark.parametrize("method", ["facmic", "faa-clip"])
def test_statistics_of_batch_norms_are_the_public_reference_s_or_stay(method):
    start = initial_shared_head(method, SIZE, 3, CLASSES)
    without = trained(method, 1.0)
    for name in ("norm.running_mean", "norm.running_var"):
        assert np.array_equal(without[name], start[name])
    target = example_data(30, seed=9)[0]
    one, other = (trained(method, 1.0, rows, target=target) for rows in (slice(None), slice(0, 20)))
    for name in ("norm.running_mean", "norm.running_var"):
        assert np.array_equal(one[name], other[name])
        assert not np.array_equal(one[name], start[name])


def test_it_learns_where_noise_is_small():
    head = trained("linear-probe", 0.01, local_epochs=20, shared_learning_rate=0.02)
    _, logits = site_method("linear-probe").shared_pass(
        TorchLayers(training=False),
        tensors_of(head, shared_head_specification("linear-probe", SIZE, CLASSES)),
        torch.tensor(EMBEDDINGS),
        torch.tensor(CAPTIONS),
        SCALE,
    )
    assert (logits.argmax(dim=1).numpy() == LABELS).mean() > 0.8


def test_no_private_head_is_needed():
    assert initial_private_head("fedmedclip", SIZE, CLASSES, 1, "site-a")
    assert set(trained("fedmedclip", 1.0)) == {
        tensor.name for tensor in shared_head_specification("fedmedclip", SIZE).tensors
    }
