"""The newcomer benchmark as a person runs it, and what its rows mean."""

import json
import subprocess
import sys
from statistics import fmean

import numpy as np
import pytest
from rich.console import Console

from benchmarks.results.text_readers import under_headings
from fedmedclip.edge_client.learning.floors import DEFAULT_FLOORS, NO_FLOORS
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.heads.shared_heads import known_methods
from fedmedclip.simulation.federation.engine import begin
from fedmedclip.simulation.federation.source import Source
from fedmedclip.simulation.federation.trainer import Trainer
from fedmedclip.simulation.federation.virtual_sites import VirtualSite, VirtualSites
from fedmedclip.simulation.newcomer.benchmark import NewcomerSettings, run_newcomer
from fedmedclip.simulation.newcomer.play import play_whole, train_beside
from fedmedclip.simulation.newcomer.runs import Newcomers
from fedmedclip.simulation.newcomer.study import Case, Study
from tests import ROOT

NAMES = {"method", "site", "labels_per_class", "seed", "accuracy", "balanced_accuracy"}
BASELINES = {
    "zero-shot", "local-only", "local-only:fedmedclip", "local-only:linear-probe", "pooled",
    "pooled:linear-probe",
}  # fmt: skip
SITES = {"site-0", "site-1", "site-2"}


def run(features_file, out, **changes):
    settings = NewcomerSettings(**{
        "out": out, "source": Source(None, None, features_file), "methods": "fedmedclip,linear-probe",
        "pooled": "linear-probe", "labels": "0,1,all", "seeds": "0", "rounds": 1, "codec": "int8",
        **changes,
    })  # fmt: skip
    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    run_newcomer(settings, console)
    return json.loads((out / "newcomer.json").read_text()), console.export_text()


@pytest.fixture(scope="module", autouse=True)
def few_resamples():
    """Ten thousand take longer than everything else here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fedmedclip.simulation.accuracy.significance.RESAMPLES", 200)
        yield


@pytest.fixture(scope="module")
def finished(features_file, tmp_path_factory):
    out = tmp_path_factory.mktemp("newcomer")
    return out, *run(features_file, out)


def federated(site="site-0", labels=1, **changes):
    return Case(**{
        "way": "federated", "method": "fedmedclip", "site": site, "labels": labels, "seed": 0, **changes
    })  # fmt: skip


def nothing():
    """Take no notice of a round."""


def test_it_writes_every_row_a_page_and_a_plot(finished):
    out, content, text = finished
    methods = BASELINES | {"fedmedclip", "linear-probe"}
    told = [(r["method"], r["site"], r["labels_per_class"], r["seed"]) for r in content["rows"]]
    assert len(told) == len(set(told))
    at_hospitals = {(m, s, k, 0) for m in methods for s in SITES for k in (0, 1, "all")}
    elsewhere = {(m, "global_test", 0, 0) for m in methods if not m.startswith("local-only")}
    assert set(told) == at_hospitals | elsewhere
    assert all(row.keys() >= NAMES for row in content["rows"])
    assert {path.name for path in out.glob("newcomer.*")} == {
        "newcomer.json", "newcomer.md", "newcomer.svg", "newcomer.png"
    }  # fmt: skip
    assert (out / "newcomer.svg").stat().st_size < 100_000
    page = (out / "newcomer.md").read_text()
    for words in ("no difference shown", "## Missing classes, paired tests", "Images of no hospital"):
        assert words in page
    assert "Missing classes: " in text
    assert set(under_headings(out, "newcomer.md")) == {
        "accuracy", "balanced-accuracy", "paired-tests", "elsewhere", "elsewhere-paired-tests",
        "missing-classes", "missing-classes-paired-tests",
    }  # fmt: skip


def test_means_and_tests_are_of_the_rows(finished):
    _, content, _ = finished
    point = next(p for p in content["points"] if (p["method"], p["labels_per_class"]) == ("fedmedclip", 1))
    rows = [r for r in content["rows"] if (r["method"], r["labels_per_class"]) == ("fedmedclip", 1)]
    assert (point["runs"], len(rows)) == (3, 3)
    assert point["accuracy"] == pytest.approx(fmean(row["accuracy"] for row in rows), abs=1e-5)
    assert point["low"] <= point["accuracy"] <= point["high"]
    alone = {
        p["method"]: p["accuracy"]
        for p in content["points"]
        if p["labels_per_class"] == 1 and p["method"].startswith(("zero-shot", "local-only"))
    }
    findings = [f for f in content["findings"] if f["labels_per_class"] == 1]
    assert [f["method"] for f in findings] == ["fedmedclip", "linear-probe"]
    assert all(alone[finding["other"]] == max(alone.values()) for finding in findings)
    assert all(f["comparison"]["p"] <= f["comparison"]["p_corrected"] <= 1 for f in findings)


def test_a_newcomer_without_labels_answers_with_what_needs_none(finished):
    _, content, _ = finished
    without = [row for row in content["rows"] if row["labels_per_class"] == 0 and row["site"] in SITES]
    answered = {(row["method"], row["classifier"]) for row in without}
    assert answered >= {
        ("fedmedclip", "shared"), ("zero-shot", "zero_shot"), ("local-only", "zero_shot"),
    }  # fmt: skip
    assert all(sum(row["images"].values()) == 0 for row in without)
    everything = [
        row for row in content["rows"] if (row["method"], row["labels_per_class"]) == ("fedmedclip", "all")
    ]
    assert all(row["classifier"] == "ensemble" and row["sends"] for row in everything)
    assert {tuple(row["images"].values()) for row in content["rows"] if row["labels_per_class"] == 1} == {
        (1, 1, 1)
    }


@pytest.mark.parametrize(
    ("method", "labels", "missing"),
    [("fedmedclip", 8, None), ("whitened-memory", 8, None), *((method, 1, 1) for method in known_methods())],
)
def test_a_newcomer_beside_a_played_federation_has_the_bits_of_a_member(
    study, tmp_path, method, labels, missing
):
    case = federated(labels=labels, method=method, missing=missing)
    experiment, newcomer = study.experiment(method, "federated"), study.newcomer(case)
    assert study.trainer(case).contribution(newcomer).withheld
    with begin(
        experiment, study.pool, 0, tmp_path, sites=VirtualSites(study.members(case), 0)
    ) as with_newcomer:
        whole = play_whole(with_newcomer, nothing)
    with begin(experiment, study.pool, 0, tmp_path, sites=VirtualSites(study.others(case), 0)) as without:
        others = play_whole(without, nothing)
    beside = train_beside(study.trainer(case), newcomer, others.shared, nothing)
    for left, right in zip([*whole.shared, whole.private["site-0"]], [*others.shared, beside], strict=True):
        assert left.keys() == right.keys()
        assert all(np.array_equal(left[name], right[name]) for name in left)
    assert beside.keys() == study.trainer(case).initial_private("site-0").keys()


def test_a_federation_is_played_once_for_all_newcomers_that_send_nothing(study, tmp_path, monkeypatch):
    played = []

    def counted(run, on_round):
        played.append([site.name for site in run.sites.sites])
        return play_whole(run, on_round)

    monkeypatch.setattr("fedmedclip.simulation.newcomer.runs.play_whole", counted)
    newcomers = Newcomers(study, tmp_path)
    for site in sorted(SITES):
        for labels in (0, 1, 2, 8, "all"):
            newcomers.run(federated(site, labels), nothing)
    newcomers.run(federated("global_test", 0), nothing)
    three = sorted(SITES)
    assert sorted(map(len, played)) == [2, 2, 2, 3]
    assert three in played


def test_what_is_kept_changes_no_answer(study, tmp_path):
    shared = Newcomers(study, tmp_path)
    cases = [federated(site, labels) for site in ("site-0", "site-2") for labels in (1, "all")]
    cases += [case._replace(way="pooled", method="linear-probe") for case in cases]
    cases.append(federated("global_test", 0))
    for case in cases:
        assert shared.run(case, nothing) == Newcomers(study, tmp_path).run(case, nothing)


def test_a_newcomer_above_the_floors_takes_part(study, tmp_path):
    found = Newcomers(Study(study.features, "int8", 2, floors=NO_FLOORS), tmp_path).run(
        federated("site-1", 4), nothing
    )
    assert (found.sends, found.images, found.classifier) == (True, [4, 4, 4], "ensemble")
    kept_back = Newcomers(study, tmp_path).run(federated("site-1", 4), nothing)
    assert (kept_back.sends, kept_back.images) == (False, [4, 4, 4])


def test_one_image_is_too_few_to_train_on(study, tmp_path, monkeypatch):
    def one_image(self, case):
        (site,) = (site for site in self.sites(case.seed) if site.name == case.site)
        return VirtualSite(site.name, site.train[:1], site.validation, site.test)

    monkeypatch.setattr(Study, "newcomer", one_image)
    newcomers = Newcomers(study, tmp_path)
    found = newcomers.run(federated(), nothing)
    assert (found.classifier, sum(found.images), found.answers) == ("shared", 1, found.shared_answers)
    assert newcomers.run(federated(way="local-only"), nothing).classifier == "zero_shot"


def test_a_class_that_is_missing_is_never_trained_on(finished, study, tmp_path, monkeypatch):
    _, content, _ = finished
    rows = content["missing_class_rows"]
    assert {row["missing_class"] for row in rows} == {"class 0", "class 1", "class 2"}
    assert all(row["images"][row["missing_class"]] == 0 and 0 <= row["recall"] <= 1 for row in rows)
    assert not any("missing_class" in row for row in content["rows"])
    seen = {}
    train = Trainer.train

    def spied(self, site, *arguments):
        seen.setdefault(site.name, set()).update(self.pool.labels[site.train].tolist())
        return train(self, site, *arguments)

    monkeypatch.setattr(Trainer, "train", spied)
    for floors in (DEFAULT_FLOORS, NO_FLOORS):
        newcomers = Newcomers(Study(study.features, "int8", 2, floors=floors), tmp_path)
        found = newcomers.run(federated("site-1", "all", missing=1), nothing)
        assert found.sends == (floors is NO_FLOORS)
        assert seen == {"site-0": {0, 1, 2}, "site-1": {0, 2}, "site-2": {0, 1, 2}}


@pytest.mark.slow
def test_finished_runs_are_not_run_again_and_labels_and_seeds_can_be_added(
    finished, features_file, monkeypatch
):
    out, content, _ = finished
    played = []
    run_case = Newcomers.run

    def counted(self, case, on_round):
        played.append(case)
        return run_case(self, case, on_round)

    monkeypatch.setattr(Newcomers, "run", counted)
    again, text = run(features_file, out, labels="0,4", seeds="0,1", missing_class=False)
    assert "runs are done already" in text
    at_hospitals = [case for case in played if case.site in SITES]
    assert {(case.labels, case.seed) for case in at_hospitals} == {(4, 0), (0, 1), (4, 1)}
    before = [row for row in content["rows"] if row["labels_per_class"] == 0]
    after = [row for row in again["rows"] if (row["labels_per_class"], row["seed"]) == (0, 0)]
    assert (after, again["seeds"], again["missing_class_rows"]) == (before, [0, 1], [])


def test_an_interrupted_benchmark_goes_on_where_it_was(finished, features_file, tmp_path, monkeypatch):
    done = []
    run_case = Newcomers.run

    def interrupted(self, case, on_round):
        if len(done) == 30:
            raise KeyboardInterrupt
        done.append(case)
        return run_case(self, case, on_round)

    monkeypatch.setattr(Newcomers, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(features_file, tmp_path, missing_class=False)
    monkeypatch.setattr(Newcomers, "run", run_case)
    content, text = run(features_file, tmp_path, missing_class=False)
    assert "30 of" in text
    assert content["rows"] == finished[1]["rows"]
    with pytest.raises(InvalidInputError, match="another codec"):
        run(features_file, tmp_path, codec="int4")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"methods": "fedmedclap"}, "did you mean 'fedmedclip'"),
        ({"methods": "zero-shot"}, "--methods: zero-shot is always there"),
        ({"methods": ","}, "--methods is empty"),
        ({"pooled": "everything"}, "unknown method"),
        ({"methods": "whitened-memory", "rule": "krum"}, "does not suit method 'whitened-memory'"),
        ({"rule": "mean"}, "unknown aggregation rule"),
        ({"labels": "0,few"}, "--labels"),
        ({"seeds": "x"}, "--seeds"),
        ({"rounds": 0}, "--rounds is 0"),
        ({"codec": "int9"}, "unknown codec"),
        ({"codec": "paper-fp16-zlib"}, "whole"),
        ({"source": Source(ROOT, None, None)}, "--data with --bundle"),
    ],
)
def test_wrong_input_is_refused_before_anything_is_written(features_file, tmp_path, changes, words):
    with pytest.raises(InvalidInputError, match=words):
        run(features_file, tmp_path / "out", **changes)
    assert not (tmp_path / "out").exists()


def test_one_hospital_has_nobody_to_join(features_file, tmp_path):
    arrays = dict(np.load(features_file))
    arrays["sites"] = np.zeros_like(arrays["sites"])
    np.savez(tmp_path / "one.npz", **arrays)
    with pytest.raises(InvalidInputError, match="at least 2 sites"):
        run(tmp_path / "one.npz", tmp_path / "out")


def test_a_federation_of_which_nobody_may_send_is_refused_before_anything_runs(features_file, tmp_path):
    arrays = dict(np.load(features_file))
    few = np.arange(len(arrays["labels"])) < 180
    for name in ("embeddings", "labels", "sites", "groups"):
        arrays[name] = arrays[name][few]
    np.savez(tmp_path / "few.npz", **arrays)
    with pytest.raises(InvalidInputError, match="without site-0 none of 2 sites may send"):
        run(tmp_path / "few.npz", tmp_path / "out")
    assert not (tmp_path / "out" / "runs.jsonl").exists()


def test_the_command_line_says_one_line(features_file, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "fedmedclip", "bench", "newcomer", "--features", str(features_file),
         "--labels", "few", "--out", str(tmp_path / "out")],
        capture_output=True, text=True, cwd=ROOT, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "--labels 'few'" in done.stderr.strip().splitlines()[-1]
