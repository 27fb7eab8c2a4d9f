"""The accuracy benchmark's options: dealt sites, parts, rules, the round that counts, and the baselines."""

import dataclasses
import json

import msgspec
import numpy as np
import pytest
from rich.console import Console

from fedmedclip.edge_client.learning.floors import NO_FLOORS
from fedmedclip.edge_client.learning.settings import TrainingSettings
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.heads.shared_heads import known_methods
from fedmedclip.simulation.accuracy import benchmark
from fedmedclip.simulation.accuracy.benchmark import run_accuracy
from fedmedclip.simulation.accuracy.cases import leave_one_out, read_cases
from fedmedclip.simulation.accuracy.settings import AccuracySettings
from fedmedclip.simulation.federation.experiment import Experiment
from fedmedclip.simulation.federation.source import Source

COMMON = Experiment(method="fedmedclip", rounds=2, floors=NO_FLOORS)


def run(features, out, **changes):
    settings = AccuracySettings(
        out, Source(features=features), methods="zero-shot,linear-probe", rounds=2, seeds="0,1",
        ablations=False, floors=False,
    )  # fmt: skip
    console = Console(width=150, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    run_accuracy(dataclasses.replace(settings, **changes), console)
    report = (out / "report.md").read_text()
    return json.loads((out / "accuracy.json").read_text()), console.export_text(), report


@pytest.fixture(scope="module", autouse=True)
def no_figures():
    """Drawing takes most of a small report's time, and no option changes how it is done."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(benchmark, "draw", lambda *_: [])
        yield


def of(content, label):
    return next(row for row in content["methods"] if row["label"] == label)


@pytest.fixture(scope="module")
def dealt(pool_file, tmp_path_factory):
    """Five uneven sites of which three, drawn anew, train in a round; the best of the rounds counts."""
    methods = "zero-shot,linear-probe,local-only:linear-probe,pooled:whitened-memory,pooled,whitened-memory"
    return run(
        pool_file, tmp_path_factory.mktemp("dealt"), methods=methods, sites=5, alpha=0.3, sites_per_round=3,
        fractions="60/20/20", rule="weighted_mean", select="best-validation", rounds=3,
    )  # fmt: skip


def test_the_report_says_how_the_sites_were_made_and_which_heads_count(dealt):
    content, _, report = dealt
    setting = content["setting"]
    assert setting["dealt_among"] == 5
    assert (setting["alpha"], setting["sites_per_round"]) == (0.3, 3)
    assert setting["fractions"] == [0.6, 0.2, 0.2]
    assert (setting["select"], setting["rule"]) == ("best-validation", "weighted_mean")
    for words in (
        "dealt out among 5, Dirichlet alpha 0.3", "3 of them drawn for each round", "60/20/20 %",
        "aggregation rule weighted_mean", "best mean accuracy over the sites' validation images",
        "images would have to travel",
    ):  # fmt: skip
        assert words in report


def test_a_dealt_site_has_no_column_and_is_not_left_out(dealt):
    content, text, report = dealt
    assert content["site_names"] == content["leave_one_out"] == []
    for row in content["methods"]:
        assert set(row["scores"]) == {"sites"}
        assert 0.4 < row["scores"]["sites"]["ensemble"]["accuracy"]["mean"] <= 1
        assert "balanced_accuracy" in row["scores"]["sites"]["ensemble"]
        means = row["scores"]["sites"]["ensemble"]["accuracy"]["values"]
        for worst, mean in zip(row["worst_site"]["values"], means, strict=True):
            assert 0 <= worst <= mean
    zero_shot = content["methods"][0]
    assert zero_shot["worst_site"]["mean"] < zero_shot["scores"]["sites"]["ensemble"]["accuracy"]["mean"]
    assert "site-0" not in report
    assert "linear-probe" in text


def test_every_method_has_its_round(dealt):
    content, _, report = dealt
    for row in content["methods"]:
        assert len(row["selected_rounds"]) == 2
        assert set(row["selected_rounds"]) <= {1, 2, 3}
    assert of(content, "zero-shot")["selected_rounds"] == [1, 1]
    assert "rounds chosen" in report


def test_only_a_federation_sends_and_has_a_rule(dealt):
    content, _, _ = dealt
    sent = {row["label"]: row["uplink_bytes_per_round"] for row in content["methods"]}
    assert {label for label, size in sent.items() if size} == {"linear-probe", "whitened-memory"}
    rules = {row["label"]: (row["regime"], row["rule"]) for row in content["methods"]}
    assert rules["linear-probe"] == ("federated", "weighted_mean")
    assert rules["pooled"] == ("pooled", None)
    assert rules["local-only:linear-probe"] == ("local-only", None)


def test_bytes_are_per_site_that_takes_part(pool_file, tmp_path, dealt):
    everyone, _, _ = run(pool_file, tmp_path, sites=5, alpha=0.3, fractions="60/20/20", rounds=3)
    some, all_five = (
        of(content, "linear-probe")["uplink_bytes_per_round"] for content in (dealt[0], everyone)
    )
    assert some == pytest.approx(all_five, rel=0.35)


def test_sites_that_cannot_take_part_are_named(pool_file, tmp_path):
    content, text, _ = run(pool_file, tmp_path, sites=15, alpha=0.1, seeds="0", rounds=1)
    notes = " ".join(content["notes"])
    assert "fewer than 2 training images, which take no part" in notes
    assert "without test images, which count in no accuracy" in notes
    assert notes[:40] in text


def test_sites_below_the_floors_are_named_and_none_at_all_is_refused(pool_file, tmp_path):
    content, _, _ = run(
        pool_file, tmp_path / "some", sites=3, alpha=0.5, seeds="0", rounds=1, floors=True
    )  # fmt: skip
    assert any("floors let send nothing, with linear-probe: 1 with seed 0" in n for n in content["notes"])
    with pytest.raises(InvalidInputError, match=r"none of 15 sites may send .* or --no-floors") as caught:
        run(pool_file, tmp_path / "none", sites=15, alpha=50, floors=True)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "none" / "runs.jsonl").exists()


def test_hospitals_are_left_out_in_turn_of_what_has_a_shared_head():
    cases = read_cases("zero-shot,local-only,pooled,fedclip", None, COMMON)
    left_out = [(case.label, case.left_out) for case in leave_one_out(cases, ["a", "b"])]
    assert left_out == [("pooled", "a"), ("pooled", "b"), ("fedclip", "a"), ("fedclip", "b")]


def test_many_hospitals_are_left_out_only_if_somebody_asks(tmp_path):
    draw = np.random.default_rng(0)
    labels = np.arange(264) % 2
    captions = np.eye(2, 8, dtype=np.float32)
    embeddings = (captions[labels] + 0.3 * draw.normal(size=(264, 8))).astype(np.float32)
    path = tmp_path / "eleven.npz"
    np.savez(
        path, embeddings=embeddings, labels=labels, sites=np.arange(264) // 2 % 11,
        class_embeddings=captions, logit_scale=10.0,
    )  # fmt: skip
    content, text, _ = run(path, tmp_path / "out", seeds="0", rounds=1)
    assert content["leave_one_out"] == []
    assert "none of 11 hospitals is left out in turn" in text
    content, _, _ = run(path, tmp_path / "out", seeds="0", rounds=1, leave_one_out=True)
    assert len(content["leave_one_out"]) == 11


def test_finished_runs_are_not_taken_for_those_of_other_options(pool_file, tmp_path):
    run(pool_file, tmp_path, seeds="0", rounds=1, leave_one_out=False)
    for changes, done in (
        ({}, "2 of 2"),
        ({"fractions": "80/10/10"}, None),
        # Nothing is averaged for zero-shot.
        ({"rule": "krum"}, "1 of 2"),
    ):
        _, text, _ = run(pool_file, tmp_path, seeds="0", rounds=1, leave_one_out=False, **changes)
        assert (f"{done} runs are done already" in text) if done else "done already" not in text


def test_all_has_the_baselines_that_a_reader_asks_for():
    labels = {case.label: case for case in read_cases("all", None, COMMON)}
    assert set(labels) == {
        "zero-shot", "local-only", "local-only:linear-probe", "local-only:whitened-memory", "pooled",
        "pooled:linear-probe", "pooled:whitened-memory", *known_methods(),
    }  # fmt: skip
    assert [labels[name].method for name in ("local-only", "pooled", "pooled:linear-probe")] == [
        "fedmedclip", "fedmedclip", "linear-probe",
    ]  # fmt: skip
    assert labels["pooled:whitened-memory"].regime == "pooled"


def test_local_only_is_short_for_that_of_fedmedclip():
    short, long = read_cases("local-only,local-only:fedmedclip", None, COMMON)
    assert short.identity == long.identity
    assert short.label != long.label


def test_a_row_alone_or_pooled_trains_as_its_table_says(tmp_path):
    path = tmp_path / "training.toml"
    path.write_text(
        "batch_size = 8\n[eager]\nmethod = 'fedclip'\nbatch_size = 16\n[gathered]\nmethod = 'fedclip'\n"
        "pooled = true\n['local-only:linear-probe']\nbatch_size = 4\n[robust]\nmethod = 'fedclip'\n"
        "rule = 'krum'\nweighting = 'equal'\n[linear-probe]\nbatch_size = 64\n"
        "[single]\nmethod = 'fedclip'\nfederated = false\n"
    )
    names = "local-only:eager,pooled:eager,gathered,local-only:linear-probe,pooled:linear-probe,robust,single"
    cases = read_cases(names, path, COMMON)
    assert [case.method for case in cases] == [
        "fedclip", "fedclip", "fedclip", "linear-probe", "linear-probe", "fedclip", "fedclip",
    ]  # fmt: skip
    assert [case.settings.batch_size for case in cases] == [16, 16, 8, 4, 64, 8, 8]
    assert [case.regime for case in cases] == [
        "local-only", "pooled", "pooled", "local-only", "pooled", "federated", "local-only",
    ]  # fmt: skip
    assert [case.rule_name for case in cases][-2:] == ["krum", None]
    assert [case.weighting for case in cases][-2:] == ["equal", "samples"]


def test_labels_and_what_a_federation_sends_are_no_part_of_a_pooled_run():
    one, other = read_cases("pooled", None, COMMON), read_cases(
        "pooled", None, msgspec.structs.replace(COMMON, uplink_codec="int8", rule="krum")
    )  # fmt: skip
    assert one[0].identity == other[0].identity
    changed = msgspec.structs.replace(one[0], settings=TrainingSettings(batch_size=16))
    assert changed.identity != one[0].identity


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sites": 0}, "0 sites cannot be simulated"),
        ({"sites": 3, "alpha": 0.0}, "alpha is 0"),
        ({"sites_per_round": 0}, "--sites-per-round is 0"),
        ({"fractions": "60/20"}, "--fractions '60/20'"),
        ({"fractions": "100/0/0"}, "--fractions '100/0/0'"),
        ({"select": "best"}, "--select: unknown selection 'best'"),
        ({"rule": "mean"}, "unknown aggregation rule 'mean'"),
        ({"rule": "krum", "methods": "whitened-memory"}, "does not suit method 'whitened-memory'"),
        ({"sites": 3, "leave_one_out": True}, "--leave-one-out is for hospitals as they are"),
        ({"methods": "local-only:zero-shot"}, "zero-shot trains nothing"),
        ({"methods": "pooled:fedclap"}, "unknown method 'fedclap'; did you mean 'fedclip'"),
        ({"methods": "federated:fedclip"}, "unknown method 'federated:fedclip'"),
        ({"fractions": "80/0/20", "select": "best-validation"}, "no site has validation images"),
    ],
)
def test_options_that_cannot_be_used_are_one_line(pool_file, tmp_path, changes, words):
    with pytest.raises(InvalidInputError, match=words) as caught:
        run(pool_file, tmp_path / "out", **changes)
    assert "\n" not in str(caught.value)


def test_a_table_that_is_pooled_is_not_federated(tmp_path):
    path = tmp_path / "training.toml"
    path.write_text("[x]\nmethod = 'fedclip'\npooled = true\nfederated = true\n")
    with pytest.raises(InvalidInputError, match=r"\[x\] is both federated and pooled"):
        read_cases("x", path, COMMON)
