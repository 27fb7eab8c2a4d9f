"""The robustness benchmark as a person runs it, and what its rows mean."""

import json
import subprocess
import sys
from statistics import fmean

import pytest
from rich.console import Console

from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.simulation.federation.source import Source
from fedmedclip.simulation.robustness.benchmark import RobustnessSettings, run_robustness
from fedmedclip.simulation.robustness.report import in_words, to_markdown
from fedmedclip.simulation.robustness.results import Row, summarise, verdicts
from fedmedclip.simulation.robustness.runs import ALONE, Case, arena, run_case
from tests import ROOT

NAMES = {"attack", "rule", "sites", "attackers", "seed", "accuracy", "clean_accuracy", "local_accuracy"}


def run(pool_file, out, **changes):
    settings = RobustnessSettings(
        **{
            "out": out, "attacks": "ipm,scale", "rules": "weighted_mean",
            "source": Source(None, None, pool_file), "sites": "4", "seeds": "0", "rounds": 2,
            "codec": "int8", **changes,
        }
    )  # fmt: skip
    console = Console(width=120, record=True, quiet=False, file=open("/dev/null", "w"))  # noqa: SIM115
    run_robustness(settings, console)
    return json.loads((out / "robustness.json").read_text()), console.export_text()


@pytest.fixture(scope="module")
def finished(pool_file, tmp_path_factory):
    out = tmp_path_factory.mktemp("robustness")
    return out, *run(pool_file, out)


@pytest.fixture
def experiment(pool):
    return arena(pool, "int8", 3, 1.0, 1000.0)


def case(**changes):
    return Case(**{
        "method": "fedmedclip", "sites": 4, "rule": "weighted_mean", "attack": "none", "attackers": 0,
        "seed": 0, **changes,
    })  # fmt: skip


def final(found, site):
    return fmean(found.shared[site][-3:])


def test_it_writes_rows_a_page_and_a_plot(finished):
    out, content, text = finished
    rows = content["rows"]
    assert all(row.keys() >= NAMES for row in rows)
    told = [(row["attack"], row["attackers"], row["seed"]) for row in rows]
    assert told == [("none", 0, 0), ("ipm", 1, 0), ("scale", 1, 0)]
    assert rows[0]["accuracy"] == rows[0]["clean_accuracy"] == rows[0]["mean_accuracy"]
    assert {path.name for path in out.glob("robustness.*")} == {
        "robustness.json", "robustness.png", "robustness.svg"
    }  # fmt: skip
    assert "| `weighted_mean` |" in (out / "report.md").read_text()
    assert "worst attack" in text
    (verdict,) = content["verdicts"]
    by_attack = {found["attack"]: found["lost"]["mean"] for found in content["summaries"]}
    assert verdict["lost"]["mean"] == by_attack[verdict["worst_attack"]] == min(by_attack.values())


def test_finished_runs_are_not_run_again_and_an_attack_can_be_added(finished, pool_file, monkeypatch):
    out, content, _ = finished
    played = []

    def counted(experiment, case, *arguments):
        played.append(case.attack)
        return run_case(experiment, case, *arguments)

    monkeypatch.setattr("fedmedclip.simulation.robustness.benchmark.run_case", counted)
    again, text = run(pool_file, out, attacks="ipm,noise")
    # The clean run, local training, and two attacks.
    assert "3 of 4 runs are done already" in text
    assert played == ["noise"]
    assert again["rows"][:2] == content["rows"][:2]


def test_an_interrupted_benchmark_goes_on_where_it_was(finished, pool_file, tmp_path, monkeypatch):
    done = []

    def interrupted(*arguments):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(arguments[1])
        return run_case(*arguments)

    monkeypatch.setattr("fedmedclip.simulation.robustness.benchmark.run_case", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(pool_file, tmp_path)
    monkeypatch.undo()
    content, text = run(pool_file, tmp_path)
    assert "2 of 4 runs are done already" in text
    assert content["rows"] == finished[1]["rows"]
    with pytest.raises(InvalidInputError, match="another alpha"):
        run(pool_file, tmp_path, alpha=2.0)


def test_a_clean_run_is_held_against_the_same_honest_sites(finished, pool):
    _, content, _ = finished
    experiment = arena(pool, "int8", 2, 1.0, 1000.0)
    row = next(row for row in content["rows"] if row["attack"] == "ipm" and row["seed"] == 0)
    attacked = run_case(experiment, case(attack="ipm", attackers=1), None, lambda: None)
    clean = run_case(experiment, case(), None, lambda: None)
    alone = run_case(experiment, case(rule=ALONE), None, lambda: None)
    honest = set(attacked.shared) - set(attacked.hostile)
    assert (len(honest), clean.hostile) == (3, [])
    for name, found in (("accuracy", attacked), ("clean_accuracy", clean), ("local_accuracy", alone)):
        assert row[name] == pytest.approx(fmean(final(found, site) for site in honest), abs=1e-6)


def row(attack, seed, accuracy, clean, mean=0.9, **changes):
    values = dict.fromkeys(Row.__struct_fields__, 0.5)
    return Row(**{
        **values, "attack": attack, "rule": "krum", "sites": 5, "attackers": 1, "seed": seed,
        "method": "gate", "accuracy": accuracy, "clean_accuracy": clean, "mean_accuracy": mean,
        "refused": 0, "stopped": "", **changes,
    })  # fmt: skip


def test_differences_are_paired_by_seed():
    rows = [
        row("none", 0, 0.88, 0.88), row("none", 1, 0.72, 0.72, mean=0.706),
        row("ipm", 0, 0.86, 0.88), row("ipm", 1, 0.71, 0.72),
        row("noise", 0, 0.88, 0.88), row("noise", 1, 0.7, 0.72),
    ]  # fmt: skip
    none, ipm, noise = summarise(rows)
    assert (none.lost.mean, ipm.lost.mean, noise.lost.mean) == pytest.approx((-0.003, -0.015, -0.01))
    assert ipm.lost.high - ipm.lost.mean == pytest.approx(12.706 * 0.005, rel=1e-3)
    (verdict,) = verdicts([none, ipm, noise])
    assert (verdict.worst_attack, verdict.withstands, verdict.is_cheap) == ("ipm", True, True)
    assert "krum: worst attack ipm -1.50" in in_words(verdict)
    worse = verdicts(summarise([row("none", 0, 0.88, 0.88), row("ipm", 0, 0.85, 0.88)]))[0]
    assert (worse.withstands, worse.is_cheap) == (False, False)


def test_what_stopped_is_said():
    rows = [row("none", 0, 0.9, 0.9), row("ipm", 0, 0.5, 0.9, stopped="round 2: too few")]
    summaries = summarise(rows)
    page = to_markdown(rows, summaries, verdicts(summaries), "fedmedclip bench robustness", 1)
    assert "-40.00 !" in page
    assert "- krum under ipm, seed 0: round 2: too few" in page


def test_an_attack_on_the_plain_mean_is_felt(experiment):
    clean = run_case(experiment, case(), None, lambda: None)
    attacked = run_case(experiment, case(attack="scale", attackers=1), None, lambda: None)
    honest = set(attacked.shared) - set(attacked.hostile)
    assert (
        fmean(final(attacked, site) for site in honest) < fmean(final(clean, site) for site in honest) - 0.1
    )


def test_what_is_above_the_norm_limit_is_refused_in_every_round(experiment):
    found = run_case(experiment, case(attack="scale:strength=1.1", attackers=1), None, lambda: None)
    assert (found.refused, found.stopped) == (experiment.common.rounds, "")


def test_rounds_that_cannot_go_on_leave_the_head_as_it_was(experiment, monkeypatch):
    from fedmedclip.protocol.errors import AggregationError
    from fedmedclip.simulation.federation.federation import Federation

    played = Federation.play_round

    def failing(federation, number, sites):
        if number == 2:
            raise AggregationError("too few")
        return played(federation, number, sites)

    monkeypatch.setattr(Federation, "play_round", failing)
    rounds = []
    found = run_case(experiment, case(), None, lambda: rounds.append(1))
    assert (found.stopped, len(rounds)) == ("round 2: too few", 3)
    assert all(len(set(accuracies)) == 1 for accuracies in found.shared.values())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"attacks": "sing-flip"}, "unknown attack 'sing-flip'; did you mean 'sign-flip'"),
        (
            {"rules": "weighted-mean"},
            "unknown aggregation rule 'weighted-mean'; did you mean 'weighted_mean'",
        ),
        ({"rules": ","}, "--rules is empty"),
        ({"rules": "trimmed_mean:share=2"}, "share"),
        ({"rules": "krum", "methods": "whitened-memory"}, "does not suit method 'whitened-memory'"),
        ({"methods": "fedmedclap"}, "unknown method"),
        ({"codec": "int9"}, "unknown codec"),
        ({"sites": "4,many"}, "--sites: 'many'"),
        ({"attackers": 4}, "leaves no honest site"),
        ({"attackers": 0}, "--attackers is 0"),
        ({"rounds": 0}, "--rounds is 0"),
        ({"seeds": "x"}, "--seeds 'x'"),
        ({"maximum_update_norm": 0.0}, "--maximum-update-norm is 0"),
        ({"sites": "200"}, "fewer sites or a larger alpha"),
    ],
)
def test_wrong_input_is_refused_before_anything_runs(pool_file, tmp_path, changes, words):
    with pytest.raises(InvalidInputError, match=words):
        run(pool_file, tmp_path / "out", **changes)
    assert not (tmp_path / "out" / "runs.jsonl").exists()


def test_the_command_line_takes_output_and_says_one_line(pool_file, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "fedmedclip", "bench", "robustness", "--features", str(pool_file), "--attacks",
         "alei", "--output", str(tmp_path / "out")],
        capture_output=True, text=True, cwd=ROOT, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "did you mean 'alie'" in done.stderr.strip().splitlines()[-1]
    assert "Traceback" not in done.stderr
