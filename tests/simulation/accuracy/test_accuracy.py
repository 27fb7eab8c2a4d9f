"""The accuracy benchmark as a person runs it: the same numbers each time, resumed, and a whole report."""

import dataclasses
import json
import math
import re
from itertools import product

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from typer.testing import CliRunner

import fedmedclip.simulation.accuracy.benchmark as benchmark
from fedmedclip.command import app
from fedmedclip.edge_client.heads.paired_tests import clustered_mcnemar, random_sign_flips
from fedmedclip.edge_client.learning.floors import NO_FLOORS
from fedmedclip.edge_client.learning.settings import TrainingSettings
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.simulation.accuracy.benchmark import run_accuracy
from fedmedclip.simulation.accuracy.cases import Case, read_cases
from fedmedclip.simulation.accuracy.evidence import joined
from fedmedclip.simulation.accuracy.runs import run_case
from fedmedclip.simulation.accuracy.scores import (
    THRESHOLDS,
    macro_auroc,
    negative_class,
    net_benefit,
    reliability,
)
from fedmedclip.simulation.accuracy.settings import AccuracySettings
from fedmedclip.simulation.accuracy.significance import (
    Comparison,
    compare,
    compare_balanced,
    holm,
    paired_bootstrap,
)
from fedmedclip.simulation.federation.experiment import Experiment, with_codec
from fedmedclip.simulation.federation.feature_pool import pool_of_file
from fedmedclip.simulation.federation.source import Source
from fedmedclip.simulation.federation.targets import Target

TRAINING = """
batch_size = 16
[eager]
method = "fedmedclip"
shared_learning_rate = 0.01
[adapting]
method = "facmic"
target = { images = "global_test", form = "statistics" }
"""
METHODS = ["zero-shot", "local-only", "fedmedclip", "adapting"]


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    """150 images of three overlapping classes at three sites, and 30 of no site; 8 values each."""
    draw = np.random.default_rng(0)
    captions = np.linalg.qr(draw.normal(size=(8, 3)))[0].T.astype(np.float32)

    def images(count):
        labels = draw.integers(0, 3, count)
        return (captions[labels] + 0.4 * draw.normal(size=(count, 8))).astype(np.float32), labels

    path = tmp_path_factory.mktemp("features") / "features.npz"
    embeddings, labels = images(150)
    global_embeddings, global_labels = images(30)
    np.savez(
        path, embeddings=embeddings, labels=labels, sites=np.arange(150) % 3, class_embeddings=captions,
        logit_scale=10.0, global_embeddings=global_embeddings, global_labels=global_labels,
    )  # fmt: skip
    return path


@pytest.fixture(scope="module")
def training(tmp_path_factory):
    path = tmp_path_factory.mktemp("training") / "training.toml"
    path.write_text(TRAINING)
    return path


def run(features, training, out, **changes):
    settings = AccuracySettings(
        out,
        Source(features=features),
        methods=",".join(METHODS),
        training=training,
        rounds=1,
        seeds="0,1",
        floors=False,
    )
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    run_accuracy(dataclasses.replace(settings, **changes), console)
    return json.loads((out / "accuracy.json").read_text()), console.export_text()


@pytest.fixture(scope="module")
def finished(features, training, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    return out, *run(features, training, out)


def case(**changes):
    return Case(
        **{
            "label": "fedmedclip", "method": "fedmedclip", "rounds": 2, "settings": TrainingSettings(),
            "uplink_codec": "lowrank", "downlink_codec": "lowrank", "floors": NO_FLOORS, **changes,
        }
    )  # fmt: skip


def common(codec="lowrank", **changes):
    return with_codec(Experiment(method="fedmedclip", rounds=5, **changes), codec)


def test_the_report_has_every_section_and_stands_alone(finished):
    out, content, text = finished
    markdown, html = (out / "report.md").read_text(), (out / "report.html").read_text()
    for section in (
        "Summary", "Against fedmedclip", "A hospital that did not take part", "With a part switched off",
        "Calibration", "Decisions", "Confusion", "Every score", "How it was measured",
    ):  # fmt: skip
        assert section in markdown
        assert section in html
    for part in ("mask", "MLP", "distillation", "adaptive distillation", "compression", "domain adaptation"):
        assert f"\n| without {part} |" in markdown
    for name in ("balanced", "macro F1", "AUROC", "calibration error", "Holm", "bootstrap"):
        assert name in markdown
    assert not re.search(r'src="(?!data:)|href="(?!#)|https?://|<script|<link', html)
    for name in re.findall(r"\]\((.*?)\)", markdown):
        assert (out / name).read_text().startswith("<?xml")
    assert len(re.findall(r'src="data:image/svg', html)) == 8
    assert [row["label"] for row in content["methods"]] == METHODS
    assert "adapting" in text


def test_scores_are_of_every_test_set_and_classifier_over_the_seeds(finished):
    _, content, _ = finished
    zero_shot, alone, federated, _ = content["methods"]
    scores = federated["scores"]
    assert set(scores) == {"site-0", "site-1", "site-2", "sites", "global_test"}
    for table in scores.values():
        assert set(table) == {"zero_shot", "shared", "private", "ensemble"}
        for metrics in table.values():
            assert set(metrics) == {"accuracy", "balanced_accuracy", "macro_f1", "auroc", "ece"}
            for figure in metrics.values():
                assert len(figure["values"]) == 2
                assert figure["mean"] == pytest.approx(np.mean(figure["values"]), abs=1e-6)
                assert 0 <= figure["mean"] <= 1
    assert {(row["label"], row["site"]) for row in content["leave_one_out"]} == {
        (label, f"site-{number}") for label in ("fedmedclip", "adapting") for number in range(3)
    }
    assert {row["images"] for row in content["leave_one_out"]} == {50}
    # Who shares nothing has no head for others, and sends nothing; only what adapts has a reference set.
    assert "shared" not in alone["scores"]["global_test"]
    assert [row["uplink_bytes_per_round"] > 0 for row in content["methods"]] == [False, False, True, True]
    assert [row["target_bytes"] > 0 for row in content["methods"]] == [False, False, False, True]
    assert zero_shot["scores"]["sites"]["ensemble"] == zero_shot["scores"]["sites"]["zero_shot"]
    ablations = {row["part"]: row for row in content["ablations"]}
    assert ablations["domain adaptation"]["label"] == "adapting"
    assert ablations["compression"]["bytes_per_round"] > federated["uplink_bytes_per_round"]


@pytest.mark.slow
def test_the_same_command_gives_the_same_numbers_and_pictures(finished, features, training, tmp_path):
    out, content, _ = finished
    again, _ = run(features, training, tmp_path, leave_one_out=False, ablations=False)
    for one, other in zip(content["methods"], again["methods"], strict=True):
        assert one | {"seconds": 0} == other | {"seconds": 0}
    assert again["comparisons"] == content["comparisons"]
    assert again["leave_one_out"] == again["ablations"] == []
    for figure in (out / "figures").iterdir():
        assert (tmp_path / "figures" / figure.name).read_bytes() == figure.read_bytes()


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on_where_it_was(finished, features, training, tmp_path, monkeypatch):
    out, content, _ = finished
    lines = (out / "runs.jsonl").read_bytes().splitlines(keepends=True)
    # Two finished runs, and a third that a kill cut short.
    (tmp_path / "runs.jsonl").write_bytes(b"".join(lines[:3]) + lines[3][:100])
    played = []

    def counting(*arguments):
        played.append(arguments)
        if len(played) == 3:
            raise KeyboardInterrupt
        return run_case(*arguments)

    monkeypatch.setattr(benchmark, "run_case", counting)
    with pytest.raises(KeyboardInterrupt):
        run(features, training, tmp_path, ablations=False)
    resumed, text = run(features, training, tmp_path, leave_one_out=False, ablations=False)
    # Two were kept, and two more had been played before the interruption.
    assert "4 of 8 runs are done already" in text
    assert len(played) == 3 + 4
    assert resumed["comparisons"] == content["comparisons"]


def test_ablations_change_what_they_say(features, tmp_path):
    pool = pool_of_file(features)
    no_mlp = TrainingSettings(classification_weight=0.0, distillation_weight=0.0)
    whole, without, unmasked = (
        run_case(chosen, 0, pool, {}, tmp_path, lambda: None)
        for chosen in (case(), case(settings=no_mlp), case(masked=False))
    )
    assert whole.parts["site-0"]["shared"] != without.parts["site-0"]["shared"]
    assert whole.parts["site-0"]["shared"] != unmasked.parts["site-0"]["shared"]


def test_a_case_is_known_by_what_it_does_not_by_its_name(training):
    reference = Target("server_reference")
    first, second, third, alone = read_cases(
        "fedmedclip, eager, facmic, local-only", training, common("lowrank/int8"), reference
    )
    assert (third.target, first.target) == (reference, None)
    assert (alone.method, alone.federated, first.federated) == ("fedmedclip", False, True)
    assert (second.method, second.settings.shared_learning_rate, second.settings.batch_size) == (
        "fedmedclip", 0.01, 16,
    )  # fmt: skip
    assert (first.uplink_codec, first.downlink_codec) == ("lowrank", "int8")
    assert first.identity != second.identity
    assert first.identity == msgspec.structs.replace(first, label="another").identity


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--methods", "nothing"], "unknown method 'nothing'"),
        (["--methods", ","], "--methods is empty"),
        (["--codec", "gzip"], "gzip"),
        (["--seeds", "a"], "--seeds"),
        (["--rounds", "0"], "--rounds is 0"),
        (["--reference-method", "eager"], "--reference-method 'eager'"),
        (["--training", "missing.toml"], "missing.toml"),
        (["--data", "docs"], "--features alone"),
        (["--training", "{folder}/target.toml", "--no-floors"], "no images 'moon'"),
    ],
)
def test_bad_input_is_one_line(features, tmp_path, arguments, problem):
    (tmp_path / "target.toml").write_text('[facmic]\ntarget = { images = "moon" }\n')
    arguments = [argument.format(folder=tmp_path) for argument in arguments]
    settings = [
        "bench",
        "accuracy",
        "--methods",
        "facmic",
        "--rounds",
        "1",
        "--seeds",
        "0",
        "--features",
        str(features),
        "--out",
        str(tmp_path),
        *arguments,
    ]
    found = CliRunner().invoke(app, settings)
    assert isinstance(found.exception, InvalidInputError)
    assert problem in str(found.exception)
    assert "\n" not in str(found.exception)


def test_training_settings_that_do_not_exist_are_refused(tmp_path):
    lines = {
        "[fedmedclip]\nlocal_epoch = 3\n": "[fedmedclip] has no setting 'local_epoch'; did you mean",
        "local_epoch = 3\n": "training.toml: has no setting 'local_epoch'; did you mean 'local_epochs'?",
        "batch_size = '3'\n": 'training.toml: batch_size is "3" (text); give a whole number',
        "[facmic]\nbatch_size = 1\n": "[facmic] training setting batch_size is 1, it must be from 2",
        "[facmic]\nfederated = 'no'\n": '[facmic] federated is "no" (text); give true or false',
        "[facmic]\ntarget = { image = 'x' }\n": "[facmic.target] has no setting 'image'; did you mean",
        "[fedmedclp]\n": "[fedmedclp] names an unknown method 'fedmedclp'; did you mean 'fedmedclip'?",
        "[new]\nmethod = 'fedclp'\n": "[new] method: unknown method 'fedclp'; did you mean 'fedclip'?",
    }
    path = tmp_path / "training.toml"
    for text, words in lines.items():
        path.write_text(text)
        with pytest.raises(InvalidInputError) as caught:
            read_cases("new" if "new" in text else "fedmedclip", path, common())
        assert words in str(caught.value)


def gains_of(better, worse):
    return np.array([1.0] * better + [-1.0] * worse + [0.0] * 7)


def test_mcnemar_of_single_images_has_the_p_values_of_the_binomial_distribution():
    assert clustered_mcnemar(gains_of(0, 0)) == 1.0
    assert clustered_mcnemar(gains_of(5, 5)) == pytest.approx(1.0)
    expected = 2 * sum(math.comb(12, k) for k in range(3)) / 2**12
    assert clustered_mcnemar(gains_of(10, 2)) == pytest.approx(expected)
    assert clustered_mcnemar(gains_of(2, 10)) == clustered_mcnemar(gains_of(10, 2))


@given(st.lists(st.integers(-6, 6), min_size=1, max_size=9))
def test_mcnemar_by_group_counts_all_signings(gains):
    signings = [
        abs(sum(s * g for s, g in zip(signs, gains, strict=True)))
        for signs in product((1, -1), repeat=len(gains))
    ]
    expected = sum(far >= abs(sum(gains)) for far in signings) / len(signings)
    assert clustered_mcnemar(np.array(gains, dtype=float)) == pytest.approx(expected)


def test_random_signings_are_near_all_signings():
    gains = np.random.default_rng(0).integers(-4, 6, 40).astype(float)
    assert random_sign_flips(gains / 7, 3) == pytest.approx(clustered_mcnemar(gains), abs=0.015)
    assert random_sign_flips(np.zeros(4), 3) == 1.0


def test_a_group_counts_once_however_many_images_and_seeds_it_has():
    correct = np.array([True] * 30 + [False, True, True])
    reference = np.array([False] * 30 + [True, True, False])
    groups = np.array([7] * 30 + [8, 9, 8])
    found = compare(correct, reference, groups, seed=0)
    # Group 7 gains thirty times, group 8 once and loses once, group 9 is a tie.
    assert (found.better, found.worse, found.groups) == (1, 0, 3)
    assert found.difference == pytest.approx(30 / 33)
    assert found.p == 1.0
    assert compare(correct, reference, np.arange(33), seed=0).p < 1e-6


def test_no_difference_is_called_one_as_often_as_the_level_says_where_groups_agree_in_themselves():
    """With images taken for independent, the same data would be "significant" about every second time."""
    draw = np.random.default_rng(2)
    of_groups = draw.integers(-1, 2, (400, 40)) * 10.0
    found = np.array([clustered_mcnemar(gains) for gains in of_groups])
    of_images = np.array([clustered_mcnemar(np.repeat(gains / 10, 10)) for gains in of_groups])
    assert np.mean(found < 0.05) < 0.08
    assert np.mean(of_images < 0.05) > 0.4


def test_balanced_accuracy_weighs_classes_alike():
    labels = np.array([0] * 90 + [1] * 10)
    first = np.ones(100, bool)
    second = labels == 0
    found = compare_balanced(first, second, np.arange(100), labels, seed=1)
    assert found.difference == pytest.approx(0.5)
    assert found.low <= 0.5 <= found.high
    assert found.p < 0.01
    assert (found.better, found.worse) == (10, 0)


def test_the_bootstrap_interval_is_that_of_the_mean():
    draw = np.random.default_rng(1)
    gains = draw.choice([-1.0, 0.0, 1.0], size=(400, 1), p=[0.1, 0.6, 0.3])
    low, high = paired_bootstrap(gains, np.ones((400, 1)), seed=5)
    error = gains.std() / 20
    assert low == pytest.approx(gains.mean() - 1.96 * error, abs=0.01)
    assert high == pytest.approx(gains.mean() + 1.96 * error, abs=0.01)
    assert (low, high) == paired_bootstrap(gains, np.ones((400, 1)), seed=5)


def test_groups_that_share_a_member_are_joined():
    found = joined(np.array([0, 0, 1, 2, 3]), np.array([5, 6, 6, 7, 8]))
    assert found[0] == found[1] == found[2]
    assert len(set(found.tolist())) == 3


def test_holm_multiplies_the_smallest_by_all_the_next_by_one_less():
    ps = {"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005}
    found = holm({name: Comparison(0, 0, 0, 0, 0, 1, p) for name, p in ps.items()})
    # The example of Holm's procedure in many textbooks: 0.03, 0.06, 0.06, 0.02.
    assert {name: round(value.p_corrected, 6) for name, value in found.items()} == {
        "a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02,
    }  # fmt: skip
    assert [name for name, value in found.items() if value.significant] == ["a", "d"]


def test_auroc_is_the_share_of_pairs_in_the_right_order():
    probabilities = np.array([[0.9, 0.1, 0], [0.4, 0.6, 0], [0.6, 0.4, 0], [0.2, 0.8, 0]], np.float32)
    # Class 0 against 1: of four pairs, three are in order, for either class. Class 2 has no image.
    assert macro_auroc(probabilities, np.array([0, 0, 1, 1])) == pytest.approx(0.75)
    assert macro_auroc(probabilities, np.zeros(4, int)) is None


def test_net_benefit_at_a_known_threshold():
    risk = np.array([0.9, 0.8, 0.3, 0.6, 0.1])
    positive = np.array([True, True, True, False, False])
    curve = dict(zip(THRESHOLDS.tolist(), net_benefit(risk, positive), strict=True))
    assert curve[0.5] == pytest.approx(2 / 5 - 1 / 5)
    assert curve[0.2] == pytest.approx(3 / 5 - 1 / 5 * 0.25)
    everyone = dict(zip(THRESHOLDS.tolist(), net_benefit(np.ones(5), positive), strict=True))
    assert everyone[0.6] == pytest.approx(3 / 5 - 2 / 5 * 1.5)


def test_reliability_bins_hold_what_falls_into_them():
    probabilities = np.array([[0.95, 0.05], [0.91, 0.09], [0.45, 0.55]], np.float32)
    found = reliability(probabilities, np.array([0, 1, 1]))
    assert [bin_.images for bin_ in found] == [1, 2]
    assert [bin_.accuracy for bin_ in found] == [1.0, 0.5]
    assert found[1].confidence == pytest.approx(0.93)


def test_the_class_that_means_nothing_found_is_known_by_its_name():
    assert negative_class(["glioma", "no_tumor"]) == 1
    assert negative_class(["normal", "pneumonia"]) == 0
    assert negative_class(["nodule", "cyst"]) is None
