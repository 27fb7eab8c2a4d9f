"""Each trained method against its formulas, and against its numpy forward pass."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest
import torch

from fedmedclip.edge_client.heads.classification import predict
from fedmedclip.edge_client.heads.heads import ensemble_of, initial_private_head, predict_probabilities
from fedmedclip.edge_client.heads.heads_file import Heads
from fedmedclip.edge_client.heads.method import site_method
from fedmedclip.edge_client.learning.layers import TorchLayers
from fedmedclip.edge_client.learning.losses import (
    classification_loss,
    image_text_loss,
    local_maximum_mean_discrepancy,
)
from fedmedclip.edge_client.learning.method import Batch
from fedmedclip.edge_client.learning.methods import faa_clip
from fedmedclip.edge_client.learning.settings import TrainingSettings
from fedmedclip.edge_client.learning.training import train_round
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.heads.head import HeadSpecification
from fedmedclip.protocol.heads.layers import batch_norm_tensors
from fedmedclip.protocol.heads.shared_heads import initial_shared_head, shared_head_specification
from tests.edge_client.heads.heads_examples import CLASSES, SCALE, SIZE, example_bundle, example_data
from tests.edge_client.learning import reference_methods as reference
from tests.edge_client.learning.tensors import tensors_of

TRAINED = ["clip-adapter", "faa-clip", "facmic", "fedclip", "linear-probe"]
ADAPTED = {
    "facmic": reference.normalised_attention,
    "faa-clip": reference.normalised_attention,
    "fedclip": reference.tanh_attention,
    "clip-adapter": reference.adapter,
    "linear-probe": None,
}
TARGET = example_data(9, seed=5)[0]


def shared_head(method, seed=3):
    """A head with nothing at a special value: statistics and scales as after some training."""
    generator = np.random.default_rng(seed)
    head = initial_shared_head(method, SIZE, seed, CLASSES)
    return {
        name: (np.abs(array) + generator.uniform(0.1, 0.5, array.shape)).astype(np.float32)
        if name.endswith(("running_var", "norm.weight"))
        else (array + 0.1 * generator.normal(size=array.shape)).astype(np.float32)
        for name, array in head.items()
    }


def loss_terms(method, shared, private, batch, **settings):
    return site_method(method).loss(TorchLayers(), shared, private, batch, TrainingSettings(**settings))


def doubles(head):
    return {name: array.astype(np.float64) for name, array in head.items()}


def expected_loss(method, head, data, mean=None):
    e, labels, captions = data
    if method == "linear-probe":
        return reference.classification(SCALE * reference.linear(head, "classifier", e), labels)
    adapted = ADAPTED[method](head, e)
    cosines = adapted @ captions.T
    if method == "clip-adapter":
        return reference.classification(SCALE * cosines, labels)
    return reference.image_text(cosines, labels, SCALE)


@pytest.mark.parametrize("method", TRAINED)
def test_loss_and_gradient_are_the_formulas(method):
    head, (e, labels, captions) = shared_head(method), example_data(13)
    data = e.astype(np.float64), labels, captions.astype(np.float64)
    tensors = tensors_of(head)
    batch = Batch(torch.tensor(data[0]), torch.tensor(labels), torch.tensor(data[2]), SCALE)
    loss = sum(loss_terms(method, tensors, {}, batch).values())
    assert loss.item() == pytest.approx(expected_loss(method, doubles(head), data), rel=1e-9)
    loss.backward()
    for name, parameter in tensors.items():
        if not parameter.requires_grad:
            continue
        index = np.unravel_index(parameter.numel() // 2, parameter.shape)
        values = []
        for step in (1e-5, -1e-5):
            moved = doubles(head)
            moved[name][index] += step
            values.append(expected_loss(method, moved, data))
        numeric = (values[0] - values[1]) / 2e-5
        assert parameter.grad[index].item() == pytest.approx(numeric, rel=1e-4, abs=1e-8), name


@pytest.mark.parametrize("method", TRAINED)
def test_numpy_and_torch_agree_in_evaluation(method):
    head, (e, _, captions) = shared_head(method), example_data(11)
    found = predict_probabilities(method, head, None, e, captions, SCALE).shared
    with torch.no_grad():
        _, logits = site_method(method).shared_pass(
            TorchLayers(training=False),
            tensors_of(head),
            torch.tensor(e, dtype=torch.float64),
            torch.tensor(captions, dtype=torch.float64),
            SCALE,
        )
    np.testing.assert_allclose(found, reference.softmax(logits.numpy()), atol=1e-5)


@pytest.mark.parametrize("method", [*TRAINED, "fedmedclip"])
def test_training_moves_every_array_of_the_specification(method):
    """What is declared and not used would travel, or be kept, for nothing."""
    heads = initial_shared_head(method, SIZE, 3, CLASSES), initial_private_head(method, SIZE, CLASSES, 3, "a")
    trained = train_round(
        method, *heads, *example_data(20), SCALE, TrainingSettings(), round_number=1, seed=1, target=TARGET
    )
    for before, after in zip(heads, (trained.shared, trained.private), strict=True):
        assert before.keys() == after.keys()
        assert [name for name in before if np.array_equal(before[name], after[name])] == []


def test_lmmd_and_its_gradient_are_the_formula():
    generator = np.random.default_rng(0)
    source = reference.unit(generator.normal(size=(8, 6)))
    target = reference.unit(generator.normal(size=(7, 6)) + 0.5)
    labels = np.array([0, 0, 1, 1, 1, 3, 3, 0])
    probabilities = reference.softmax(generator.normal(size=(7, 4)) * 2)
    mine = torch.tensor(source, requires_grad=True)
    loss = local_maximum_mean_discrepancy(
        mine, torch.tensor(labels), torch.tensor(target), torch.tensor(probabilities)
    )
    assert loss.item() == pytest.approx(reference.lmmd(source, labels, target, probabilities), rel=1e-9)
    loss.backward()
    _, mean = reference.kernels(np.concatenate([source, target]))
    for index in ((0, 0), (3, 2), (5, 5)):
        values = []
        for step in (1e-6, -1e-6):
            moved = source.copy()
            moved[index] += step
            values.append(reference.lmmd(moved, labels, target, probabilities, mean))
        assert mine.grad[index].item() == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-5)


def test_lmmd_without_a_common_class_is_zero_and_has_a_gradient():
    mine = torch.ones(1, 3, dtype=torch.float64, requires_grad=True)
    loss = local_maximum_mean_discrepancy(
        mine, torch.tensor([0]), torch.ones(1, 3, dtype=torch.float64), torch.tensor([[0.1, 0.9]])
    )
    loss.backward()
    assert loss.item() == 0
    assert not mine.grad.any()


def numeric_gradient(function, arrays, names, step=1e-6):
    """Central differences of a function of named arrays, one vector of all values of these arrays."""
    found = []
    for name in names:
        for index in np.ndindex(arrays[name].shape):
            moved = [{**arrays, name: arrays[name].copy()} for _ in range(2)]
            moved[0][name][index] += step
            moved[1][name][index] -= step
            found.append((function(moved[0]) - function(moved[1])) / (2 * step))
    return np.array(found)


def flat_gradient(tensors, names):
    return np.concatenate([tensors[name].grad.numpy().ravel() for name in names])


def assert_same_direction_and_length(found, expected):
    length = np.linalg.norm(expected)
    assert np.linalg.norm(found) / length == pytest.approx(1, abs=5e-4)
    assert found @ expected / (np.linalg.norm(found) * length) == pytest.approx(1, abs=5e-5)


def test_faa_clip_descends_as_its_authors_code_does():
    """All arrays of both heads, at the method's own weight; the target's features move nothing."""
    size, classes = 6, 3
    e, labels, captions = (array.astype(np.float64) for array in example_data(9, 0, size, classes))
    labels = labels.astype(np.int64)
    target = example_data(7, 5, size, classes)[0].astype(np.float64)
    generator = np.random.default_rng(2)
    head = {
        name: array + 0.3 * generator.normal(size=array.shape)
        for name, array in doubles(initial_shared_head("faa-clip", size, 3, classes)).items()
    }
    own = doubles(faa_clip.private_arrays(size, classes, width=5).initial(0))
    shared, private = tensors_of(head), tensors_of(own)
    batch = Batch(
        torch.tensor(e), torch.tensor(labels), torch.tensor(captions), SCALE, None, torch.tensor(target)
    )
    terms = loss_terms("faa-clip", shared, private, batch)
    sum(terms.values()).backward()
    adapted, held = (reference.normalised_attention(head, rows) for rows in (e, target))
    assert terms["adaptation"].item() == pytest.approx(0.5 * reference.adversarial(own, adapted, held))

    def of_the_head(moved):
        return reference.faa_clip_of_the_head(moved, own, e, labels, captions, held, SCALE)

    weights = [name for name in head if "running" not in name]
    assert_same_direction_and_length(
        flat_gradient(shared, weights), numeric_gradient(of_the_head, head, weights)
    )
    weights = [name for name in own if "running" not in name]
    expected = numeric_gradient(lambda moved: 0.5 * reference.adversarial(moved, adapted, held), own, weights)
    assert_same_direction_and_length(flat_gradient(private, weights), expected)


@pytest.mark.parametrize("method", ["facmic", "faa-clip"])
def test_adaptation_term_needs_a_target_and_uses_adapted_and_plain_features(method):
    head, (e, labels, captions) = shared_head(method), example_data(8)
    arrays = doubles(initial_private_head(method, SIZE, CLASSES, 0, "a"))
    shared, private = tensors_of(head), tensors_of(arrays)
    e, captions = e.astype(np.float64), captions.astype(np.float64)
    tensors = torch.tensor(e), torch.tensor(labels), torch.tensor(captions)
    assert set(loss_terms(method, shared, private, Batch(*tensors, SCALE))) == {"image_text"}
    target = TARGET.astype(np.float64)
    batch = Batch(*tensors, SCALE, target=torch.tensor(target))
    found = loss_terms(method, shared, private, batch, adaptation_weight=2.0)["adaptation"].item()
    source = reference.normalised_attention(doubles(head), e)
    adapted = reference.normalised_attention(doubles(head), target)
    if method == "facmic":
        guessed = reference.softmax(SCALE * adapted @ captions.T)
        expected = 2 * reference.lmmd(source, labels, reference.unit(target), guessed)
    else:
        expected = 2 * reference.adversarial(arrays, source, adapted)
    assert found == pytest.approx(expected, rel=1e-6)


def test_weighted_and_focal_losses_are_the_formulas():
    generator = np.random.default_rng(2)
    logits, labels = generator.normal(size=(9, 3)), generator.integers(0, 3, 9)
    weights = generator.uniform(0.5, 2, 9)
    found = classification_loss(torch.tensor(logits), torch.tensor(labels), torch.tensor(weights), 2.0)
    assert found.item() == pytest.approx(reference.classification(logits, labels, weights, 2.0), rel=1e-9)
    cosines = torch.tensor(np.tanh(logits))
    plain = image_text_loss(cosines, torch.tensor(labels), 5.0)
    same = image_text_loss(cosines, torch.tensor(labels), 5.0, torch.ones(9, dtype=torch.float64))
    focal = image_text_loss(cosines, torch.tensor(labels), 5.0, None, 2.0)
    assert same.item() == pytest.approx(plain.item())
    assert focal.item() < plain.item()


@pytest.mark.parametrize("method", ["whitened-memory", "fedmedclip", *TRAINED])
def test_the_length_of_embeddings_reaches_the_heads_that_the_papers_feed_it_to_and_no_others(method):
    e, labels, captions = example_data(30, noise=0.3)
    long = e * np.linspace(5, 12, len(e), dtype=np.float32)[:, None]
    heads = initial_shared_head(method, SIZE, 3, CLASSES), initial_private_head(method, SIZE, CLASSES, 3, "a")
    settings = TrainingSettings(shared_learning_rate=0.01)
    unit, own = example_bundle(), example_bundle()
    own = replace(own, manifest=msgspec.structs.replace(own.manifest, own_length=True))
    answers = []
    for bundle, rows in ((unit, e), (own, long)):
        trained = train_round(method, *heads, rows, labels, captions, SCALE, settings, round_number=1, seed=1)
        made = Heads(method, trained.shared, trained.private or None, "trial", "a", 1, ensemble_of(method))
        answers.append(predict(made, replace(bundle, class_embeddings=captions), rows))
    np.testing.assert_allclose(answers[0].zero_shot, answers[1].zero_shot, atol=1e-5)
    differs = np.abs(answers[0].ensemble - answers[1].ensemble).max() > 1e-3
    assert differs == (method not in ("linear-probe", "whitened-memory"))
    assert site_method(method).taken(e) is e


@pytest.mark.parametrize("method", [*TRAINED, "fedmedclip"])
def test_a_batch_of_one_gives_a_finite_loss_and_gradient(method):
    e, labels, captions = example_data(1)
    shared = tensors_of(shared_head(method), torch.float32)
    private = tensors_of(initial_private_head(method, SIZE, CLASSES, 0, "a"), torch.float32)
    batch = Batch(
        torch.tensor(e), torch.tensor(labels), torch.tensor(captions), SCALE, None, torch.tensor(TARGET[:1])
    )
    loss = sum(loss_terms(method, shared, private, batch).values())
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(weight.grad).all() for weight in shared.values() if weight.requires_grad)


def test_batch_norm_of_one_image_leaves_its_statistics():
    norm = tensors_of(HeadSpecification(batch_norm_tensors("norm", 3)).initial(0), torch.float32)
    TorchLayers().batch_norm(norm, "norm", torch.tensor([[1.0, 2.0, 3.0]]))
    assert not norm["norm.running_mean"].any()


@pytest.mark.parametrize("method", ["zero-shot", "local-only"])
def test_baselines_that_federate_nothing_say_so(method):
    with pytest.raises(InvalidInputError, match="nothing is federated"):
        shared_head_specification(method, SIZE, CLASSES)


def test_the_discriminator_is_kept_at_the_site():
    names = set(initial_private_head("faa-clip", SIZE, CLASSES, 0, "a"))
    assert {"linear1.weight", "norm2.running_var", "linear3.bias"} <= names
    assert not names & {tensor.name for tensor in shared_head_specification("faa-clip", SIZE).tensors}
