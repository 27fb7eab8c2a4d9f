import numpy as np
import pytest
import torch

from fedmedclip.edge_client.heads.heads import initial_private_head, predict_probabilities
from fedmedclip.edge_client.learning.settings import TrainingSettings
from fedmedclip.edge_client.learning.training import train_round
from fedmedclip.protocol.errors import HeadError, InvalidInputError
from fedmedclip.protocol.heads.head import head_digest
from fedmedclip.protocol.heads.shared_heads import initial_shared_head
from tests.edge_client.heads.heads_examples import CLASSES, SCALE, SIZE, example_data
from tests.edge_client.learning import reference_fedmedclip as reference

FAST = TrainingSettings(shared_learning_rate=5e-3, private_learning_rate=5e-3, batch_size=16)


def train(data=None, settings=FAST, round_number=1, seed=1, heads=None, threads=1):
    embeddings, labels, classes = data if data is not None else example_data(70, noise=0.3)
    shared, private = heads or (
        initial_shared_head("fedmedclip", SIZE, 0),
        initial_private_head("fedmedclip", SIZE, CLASSES, 0, "hospital_0"),
    )
    return train_round(
        "fedmedclip",
        shared,
        private,
        embeddings,
        labels,
        classes,
        SCALE,
        settings,
        round_number=round_number,
        seed=seed,
        threads=threads,
    )


def test_same_input_same_bits_whatever_the_global_generators_did():
    first = train()
    torch.rand(3)
    np.random.seed(5)
    second = train()
    assert head_digest(first.shared) == head_digest(second.shared)
    assert head_digest(first.private) == head_digest(second.private)
    assert first.loss == second.loss


def test_seed_and_round_change_the_result():
    digest = head_digest(train().shared)
    assert digest != head_digest(train(seed=2).shared)
    assert digest != head_digest(train(round_number=5).shared)


def test_given_arrays_stay_as_they_are_and_results_are_their_own():
    shared = initial_shared_head("fedmedclip", SIZE, 0)
    private = initial_private_head("fedmedclip", SIZE, CLASSES, 0, "hospital_0")
    before = head_digest(shared), head_digest(private)
    result = train(heads=(shared, private))
    assert (head_digest(shared), head_digest(private)) == before
    assert head_digest(result.shared) != before[0]
    assert not any(np.shares_memory(result.shared[name], shared[name]) for name in shared)


@pytest.mark.filterwarnings("error")
def test_read_only_arrays_will_do():
    data = example_data(20)
    heads = (
        initial_shared_head("fedmedclip", SIZE, 0),
        initial_private_head("fedmedclip", SIZE, CLASSES, 0, "hospital_0"),
    )
    for array in (*data, *heads[0].values(), *heads[1].values()):
        array.flags.writeable = False
    assert np.isfinite(train(data, heads=heads).loss)


def test_global_generator_and_thread_count_are_left_alone():
    torch.manual_seed(4)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    train()
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("threads", [1, 2])
def test_it_trains_with_the_threads_that_the_site_gives(monkeypatch, threads):
    given = []
    monkeypatch.setattr(torch, "set_num_threads", given.append)
    before = torch.get_num_threads()
    train(threads=threads)
    assert given == [threads, before]


def test_rounds_lower_the_loss_and_raise_the_accuracy():
    embeddings, labels, classes = example_data(120, noise=0.35)
    rounds = [train((embeddings, labels, classes))]
    for number in range(2, 9):
        heads = rounds[-1].shared, rounds[-1].private
        rounds.append(train((embeddings, labels, classes), heads=heads, round_number=number))
    assert rounds[-1].loss < 0.7 * rounds[0].loss
    last = predict_probabilities(
        "fedmedclip", rounds[-1].shared, rounds[-1].private, embeddings, classes, SCALE
    )
    accuracy = {name: (getattr(last, name).argmax(1) == labels).mean() for name in ("zero_shot", "ensemble")}
    assert accuracy["ensemble"] > accuracy["zero_shot"]


def test_thresholds_move_in_training():
    result = train()
    for head in (result.shared, result.private):
        for name, array in head.items():
            if name.endswith("threshold"):
                assert (array != 0).any(), name


def test_private_head_is_usable_after_one_round():
    """Batch norm uses the statistics of the training images, not a running average still near variance 1."""
    embeddings, labels, classes = example_data(70, noise=0.3)
    result = train((embeddings, labels, classes))
    adapted = reference.adapt(result.shared, embeddings.astype(np.float64))
    by_statistics = reference.mlp(result.private, adapted, training=False)
    by_these_images = reference.mlp(result.private, adapted, training=True)
    np.testing.assert_allclose(by_statistics, by_these_images, rtol=0.05, atol=0.02)


@pytest.mark.parametrize("count", [2, 16, 17, 33])
def test_any_number_of_images_from_two_on_trains(count):
    embeddings, labels, classes = example_data(count)
    result = train((embeddings, labels, classes))
    assert np.isfinite(result.loss)


def test_losses_are_per_image_and_add_up():
    result = train()
    assert result.loss == pytest.approx(sum(result.loss_terms.values()))
    assert set(result.loss_terms) == {"image_text", "classification", "distillation"}


def test_a_learning_rate_of_zero_freezes_the_shared_head():
    settings = TrainingSettings(shared_learning_rate=0.0)
    shared = initial_shared_head("fedmedclip", SIZE, 0)
    assert head_digest(train(settings=settings).shared) == head_digest(shared)


def test_one_image_is_refused():
    with pytest.raises(InvalidInputError, match="at least 2 labelled images, there are 1"):
        train(example_data(1))


def test_labels_outside_the_bundle_are_refused():
    embeddings, labels, classes = example_data(8)
    with pytest.raises(InvalidInputError, match="labels run from 0 to 4, the bundle has 4 classes"):
        train((embeddings, np.array([0, 1, 2, 3, 4, 0, 1, 2]), classes))
    with pytest.raises(InvalidInputError, match="8 embeddings and 7 labels"):
        train((embeddings, labels[:7], classes))


def test_embeddings_of_another_encoder_are_refused():
    embeddings, labels, classes = example_data(8)
    with pytest.raises(InvalidInputError, match=r"expected \(images, 24\)"):
        train((embeddings[:, :20], labels, classes))


def test_embeddings_that_are_not_finite_are_refused():
    embeddings, labels, classes = example_data(8)
    embeddings[3, 3] = np.nan
    with pytest.raises(InvalidInputError, match="NaN"):
        train((embeddings, labels, classes))


def test_heads_of_another_size_are_refused():
    with pytest.raises(HeadError, match="expected float32"):
        train(heads=(initial_shared_head("fedmedclip", 20, 0), {}))


def test_divergence_is_an_error_and_not_a_head():
    shared = initial_shared_head("fedmedclip", SIZE, 0)
    shared["first.bias"][:] = 3e38
    private = initial_private_head("fedmedclip", SIZE, CLASSES, 0, "hospital_0")
    with pytest.raises(HeadError, match=r"training diverged.*lower the learning rates"):
        train(heads=(shared, private))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("batch_size", 1),
        ("local_epochs", 0),
        ("shared_learning_rate", -1.0),
        ("private_learning_rate", float("nan")),
        ("beta2", 1.0),
        ("distillation_temperature", 0.0),
    ],
)
def test_settings_out_of_range_are_named(name, value):
    with pytest.raises(InvalidInputError, match=f"training setting {name} is {value}"):
        TrainingSettings(**{name: value})
