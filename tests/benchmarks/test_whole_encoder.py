"""Whole encoders in a federation: what trains, what travels, and what is there after a kill."""

import json

import numpy as np
import pytest
import torch
from rich.console import Console

from benchmarks import full_encoder
from benchmarks.whole_encoder.comparisons import ACCURACY, BALANCED
from benchmarks.whole_encoder.encoder_learner import (
    METHODS,
    EncoderLearner,
    model_contrastive_loss,
    squared_distance,
)
from benchmarks.whole_encoder.federation import float32_bytes, play
from benchmarks.whole_encoder.images import images_of_pool
from benchmarks.whole_encoder.learner import Kept, Turn, mean_of
from benchmarks.whole_encoder.tower import ImageClassifier
from fedmedclip.edge_client.learning.losses import image_text_loss
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.seeds import derive_seed

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def images(data, bundle, pool):
    return images_of_pool(data, bundle.manifest, pool)


@pytest.fixture(scope="module")
def classifier(make_network, bundle, pool):
    def make():
        return ImageClassifier(
            make_network().visual, bundle.manifest.preprocessing, torch.from_numpy(pool.class_embeddings)
        )

    return make


@pytest.fixture
def learner(images, classifier, pool):
    def make(name):
        return EncoderLearner(METHODS[name], classifier, images, pool.labels, pool.logit_scale)

    return make


def rounds_of(learner, sites, state, rounds=1):
    played = []
    play(learner, "method", "settings", sites, True, 0, rounds, state, played.append)
    return played


def test_images_have_the_order_of_the_pool(images, classifier, pool):
    with torch.no_grad():
        found = classifier().eval().embed(images.sites).numpy()
        on_global = classifier().eval().embed(images.global_test).numpy()
    unit = pool.embeddings / np.linalg.norm(pool.embeddings, axis=1, keepdims=True)
    np.testing.assert_allclose(found, unit, rtol=0, atol=1e-4)
    tested = pool.global_test.embeddings
    np.testing.assert_allclose(
        on_global, tested / np.linalg.norm(tested, axis=1, keepdims=True), rtol=0, atol=1e-4
    )


def test_other_images_than_the_pools_are_refused(data, bundle, pool, tmp_path):
    (tmp_path / "east").symlink_to(data / "east")
    with pytest.raises(InvalidInputError, match="are missing"):
        images_of_pool(tmp_path, bundle.manifest, pool)


def test_fedavg_of_one_site_is_plain_training(learner, classifier, images, pool, tmp_path):
    site = pool.deal(0).sites[0]
    fedavg = learner("fedavg-full")
    rounds_of(fedavg, [site], tmp_path / "state.pt", rounds=2)
    found = torch.load(tmp_path / "state.pt", weights_only=True)["shared"]

    model = classifier()
    model.visual.train()
    optimiser = torch.optim.AdamW(
        model.visual.parameters(), lr=5e-5, betas=(0.9, 0.98), eps=1e-6, weight_decay=0.2
    )
    labels = torch.from_numpy(pool.labels)
    for number in (1, 2):
        optimiser.param_groups[0]["lr"] = 5e-5 * 0.97 ** (number - 1)
        seed = derive_seed(0, site=site.name, round_number=number, purpose="batches")
        for rows in Turn(site.train, number, seed).batches():
            loss = image_text_loss(model(images.sites[rows]), labels[rows], pool.logit_scale)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    expected = model.visual.state_dict()
    assert found.keys() == {name for name in expected if "num_batches" not in name}
    for name, array in found.items():
        torch.testing.assert_close(array, expected[name], rtol=0, atol=1e-6)


def test_the_mean_weighs_sites_by_their_images():
    arrays = [{"w": torch.tensor([1.0, 2.0])}, {"w": torch.tensor([5.0, -2.0])}]
    torch.testing.assert_close(mean_of(arrays, [0.75, 0.25])["w"], torch.tensor([2.0, 1.0]))


@pytest.mark.parametrize("name", METHODS)
def test_bytes_are_those_of_all_that_changes(learner, pool, tmp_path, name):
    trained = learner(name)
    (played,) = rounds_of(trained, pool.deal(0).sites, tmp_path / "state.pt")
    initial = trained.initial(0)
    assert played.uplink_bytes == played.downlink_bytes == sum(4 * one.numel() for one in initial.values())
    assert played.uplink_bytes == float32_bytes(initial) == 2 * played.smaller["float16"]
    visual = trained._model.visual
    before = {key: array.clone() for key, array in visual.state_dict().items()}
    trained.train(initial, Kept(), Turn(pool.deal(0).sites[0].train, 1, 0))
    moved = {
        key
        for key, array in visual.state_dict().items()
        if array.is_floating_point() and (array != before[key]).any()
    }
    assert moved <= initial.keys()


def test_fedprox_pulls_towards_the_shared_encoder(learner, pool):
    parameters = [torch.nn.Parameter(torch.tensor([3.0, 4.0]))]
    assert squared_distance(parameters, [torch.zeros(2)]).item() == 25
    # Of more than one batch: at the first step both are the shared encoder, and the pull is nothing.
    turn = Turn(np.tile(pool.deal(0).sites[0].train, 4), 1, 0)
    plain, near = learner("fedavg-full"), learner("fedprox-full")
    shared = plain.initial(0)
    far, nearer = (one.train(shared, Kept(), turn)[0] for one in (plain, near))
    assert any(not torch.equal(far[name], nearer[name]) for name in shared)


def test_frozen_norms_statistics_stay_and_do_not_travel(learner, pool):
    frozen, free = learner("fedavg-frozen-norm"), learner("fedavg-full")
    statistics = free.initial(0).keys() - frozen.initial(0).keys()
    assert statistics
    assert {name.rpartition(".")[2] for name in statistics} == {"running_mean", "running_var"}
    before = {name: frozen._model.visual.state_dict()[name].clone() for name in statistics}
    frozen.train(frozen.initial(0), Kept(), Turn(pool.deal(0).sites[0].train, 1, 0))
    assert all(torch.equal(frozen._model.visual.state_dict()[name], before[name]) for name in statistics)


def test_moons_loss_is_its_formula():
    draw = np.random.default_rng(0)
    own, towards, away = draw.normal(size=(3, 5, 7))

    def cosine(one, other):
        return (one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)

    near, far = (np.exp(cosine(own, other) / 0.5) for other in (towards, away))
    found = model_contrastive_loss(*map(torch.from_numpy, (own, towards, away)), 0.5)
    assert found.item() == pytest.approx(-np.log(near / (near + far)).mean())


def test_moon_differs_from_fedavg_from_the_second_round_on(learner, pool, tmp_path):
    sites = pool.deal(0).sites
    states = []
    for name in ("fedavg-full", "moon"):
        for rounds in (1, 2):
            rounds_of(learner(name), sites, tmp_path / f"{name}.pt", rounds)
            states.append(torch.load(tmp_path / f"{name}.pt", weights_only=True)["shared"])
    plain, plain_second, contrastive, contrastive_second = states
    assert all(torch.equal(plain[name], contrastive[name]) for name in plain)
    assert any(not torch.equal(plain_second[name], contrastive_second[name]) for name in plain)


def without_times(path):
    lines = [json.loads(line) for line in (path / "rounds.jsonl").read_text().splitlines()[1:]]
    return [{**line, "times": None} for line in lines]


def test_goes_on_where_it_was_stopped_with_the_same_numbers(options, tmp_path):
    console = Console(quiet=True)
    full_encoder.run(options(tmp_path / "whole", methods="moon,promptfl", rounds=3, head_rounds=3), console)
    for rounds in (1, 3):
        full_encoder.run(
            options(tmp_path / "parts", methods="moon,promptfl", rounds=rounds, head_rounds=rounds), console
        )

    def key(line):
        return line["method"], line["number"]

    whole, parts = (sorted(without_times(tmp_path / name), key=key) for name in ("whole", "parts"))
    assert len(whole) == 6
    assert whole == parts


def test_the_tables_have_every_method_and_honest_comparisons(options, tmp_path):
    chosen = "zero-shot,fedmedclip,fedavg-full,promptfl"
    full_encoder.run(options(tmp_path / "out", methods=chosen, seeds="0,1"), Console(quiet=True))
    content = json.loads((tmp_path / "out" / "full-encoder.json").read_text())
    assert [(row["method"], row["seed"]) for row in content["rows"]] == [
        (method, seed) for method in chosen.split(",") for seed in (0, 1)
    ]
    by_method = {row["method"]: row for row in content["rows"]}
    assert by_method["zero-shot"]["uplink_bytes"] == 0
    assert by_method["fedmedclip"]["uplink_bytes"] < by_method["fedavg-full"]["uplink_bytes"]
    assert by_method["promptfl"]["uplink_bytes"] == 16 * 16 * 4
    assert {one["method"] for one in content["comparisons"]} == set(chosen.split(",")) - {"fedmedclip"}
    text = (tmp_path / "out" / "full-encoder.md").read_text()
    assert all(f"| {method} |" in text for method in by_method)

    full_encoder.run(options(tmp_path / "out", methods=chosen, seeds="0"), Console(quiet=True))
    content = json.loads((tmp_path / "out" / "full-encoder.json").read_text())
    last = {row["method"]: row["last"] for row in content["rows"]}
    differences = {
        (one["method"], one["test_set"], one["metric"]): one["found"]["difference"]
        for one in content["comparisons"]
    }
    for method in set(chosen.split(",")) - {"fedmedclip"}:
        for metric, name in ((BALANCED, "balanced"), (ACCURACY, "global_test")):
            test_set = "sites" if name == "balanced" else "global_test"
            expected = last[method][name] - last["fedmedclip"][name]
            assert differences[method, test_set, metric] == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize("method", ["nothing", "facmic"])
def test_a_method_that_cannot_be_is_refused_in_one_line(data, model, tmp_path, monkeypatch, capsys, method):
    words = ["--data", str(data), "--model", model, "--out", str(tmp_path / "out"), "--methods", method]
    monkeypatch.setattr("sys.argv", ["full_encoder", *words])
    with pytest.raises(SystemExit) as stopped:
        full_encoder.main()
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert method in line
    assert not (tmp_path / "out").exists()
