import numpy as np
import pytest
import torch

from fedmedclip.edge_client.learning.layers import TorchLayers
from fedmedclip.edge_client.learning.losses import image_text_loss
from fedmedclip.edge_client.learning.method import Batch
from fedmedclip.edge_client.learning.methods.fedmedclip import METHOD
from fedmedclip.edge_client.learning.settings import TrainingSettings
from tests.edge_client.heads.heads_examples import SCALE, example_data, example_heads
from tests.edge_client.learning import reference_fedmedclip as reference
from tests.edge_client.learning.tensors import tensors_of


def loss(heads, batch, settings):
    return METHOD.loss(TorchLayers(), *heads, batch, settings)


def tensors(shared, private):
    return tensors_of(shared), tensors_of(private)


def batch_of(embeddings, labels, class_embeddings, dtype=torch.float64):
    return Batch(
        torch.from_numpy(embeddings).to(dtype),
        torch.from_numpy(labels),
        torch.from_numpy(class_embeddings).to(dtype),
        SCALE,
    )


@pytest.mark.parametrize("adaptive", [True, False])
def test_loss_is_the_formulas(adaptive):
    shared, private = example_heads()
    data = example_data(13)
    settings = TrainingSettings(adaptive_distillation=adaptive)
    terms = loss(tensors(shared, private), batch_of(*data), settings)
    embeddings, labels, classes = (array.astype(np.float64) for array in data)
    expected = reference.loss_terms(
        shared, private, embeddings, labels.astype(int), classes, SCALE, adaptive=adaptive
    )
    assert terms.keys() == expected.keys()
    for name, value in expected.items():
        assert terms[name].item() == pytest.approx(value, rel=1e-5), name


@pytest.mark.parametrize(
    "name",
    [
        "shared.first.weight",
        "shared.second.bias",
        "private.linear1.weight",
        "private.norm2.weight",
        "private.classifier.weight",
    ],
)
def test_gradients_match_finite_differences_of_the_formulas(name):
    shared, private = example_heads()
    # The mask's surrogate gradient is not the formulas' derivative: far beyond |x| = 1 it is 0.
    for head in (shared, private):
        for key, array in head.items():
            if key.endswith("threshold"):
                array[:] = -5.0
    embeddings, labels, classes = example_data(13)
    heads = tensors(shared, private)
    settings = TrainingSettings(distillation_weight=3.0, adaptive_distillation=False)
    terms = loss(heads, batch_of(embeddings, labels, classes), settings)
    torch.stack(list(terms.values())).sum().backward()
    side, _, key = name.partition(".")
    gradient = heads[side == "private"][key].grad.numpy()

    double = {
        s: {k: v.astype(np.float64) for k, v in h.items()}
        for s, h in (("shared", shared), ("private", private))
    }
    array = double[side][key]
    step = 1e-6
    for position in np.random.default_rng(1).integers(0, array.size, size=6):
        index = np.unravel_index(position, array.shape)
        values = []
        for sign in (1, -1):
            array[index] += sign * step
            values.append(
                sum(
                    reference.loss_terms(
                        double["shared"],
                        double["private"],
                        embeddings.astype(np.float64),
                        labels,
                        classes.astype(np.float64),
                        SCALE,
                        weight=3.0,
                        adaptive=False,
                    ).values()
                )
            )
            array[index] -= sign * step
        assert gradient[index] == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-3, abs=1e-6)


def test_embeddings_are_not_changed_in_place():
    heads = tensors(*example_heads())
    batch = batch_of(*example_data(8))
    before = batch.embeddings.clone()
    loss(heads, batch, TrainingSettings())
    assert torch.equal(batch.embeddings, before)


def test_own_pair_targets_equal_targets_spread_over_the_class():
    embeddings, labels, classes = example_data(32)
    cosines = embeddings.astype(np.float64) @ classes.astype(np.float64).T
    own = image_text_loss(torch.from_numpy(cosines), torch.from_numpy(labels), SCALE).item()
    assert own == pytest.approx(reference.spread_image_text(cosines, labels, SCALE), rel=1e-9)


def test_both_heads_learn_from_the_distillation():
    heads = tensors(*example_heads())
    loss(heads, batch_of(*example_data(8)), TrainingSettings())["distillation"].backward()
    for head in heads:
        assert any(p.grad is not None and p.grad.abs().max() > 0 for p in head.values())
