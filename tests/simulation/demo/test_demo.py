"""`fedmedclip demo` as a person runs it: the whole way of the data, in real processes."""

import csv
import json
import os
import pty
import re
import subprocess
import sys
import urllib.request

import pytest

from tests import ROOT

CLASSIFIERS = {"zero_shot", "shared", "private", "ensemble"}


def demo(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "fedmedclip", "demo", *map(str, arguments)],
        capture_output=True, text=True, cwd=ROOT, check=False,
    )  # fmt: skip


def check_summary(out, rounds, sites):
    summary = json.loads((out / "summary.json").read_text())
    assert [entry["version"] for entry in summary["rounds"]] == list(range(1, rounds + 1))
    assert len(bytes.fromhex(summary["head_digest"])) == 32
    for entry in summary["rounds"]:
        assert set(entry["sites"]) == set(sites)
        assert entry["uplink_bytes"] == sum(site["uplink_bytes"] for site in entry["sites"].values())
        for site in entry["sites"].values():
            assert set(site["accuracy"]) == CLASSIFIERS
            assert site["encoder_images"] == 0
            assert min(site["uplink_bytes"], site["downlink_bytes"], site["train_seconds"]) > 0
        assert set(entry["global_test"]) == {"accuracy", "balanced_accuracy", "macro_f1"}
    for figures in summary["final"]["sites"].values():
        assert set(figures["accuracy"]) == CLASSIFIERS
    assert {"export", "features", "rounds", "predictions", "total"} <= set(summary["phases"])
    return summary


def mean(summary, classifier):
    figures = [site["accuracy"][classifier] for site in summary["final"]["sites"].values()]
    return sum(figures) / len(figures)


@pytest.mark.slow
def test_on_real_brain_images_with_a_pretrained_clip(tmp_path, shared, mosquitto_installed):
    out = tmp_path / "out"
    data = shared / "data" / "brain_tumor"
    done = demo(
        "--data", data, "--model", f"local-dir:{shared / 'models' / 'bench-clip'}",
        "--rounds", 4, "--broker", "mosquitto", "--out", out,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + done.stdout
    summary = check_summary(out, 4, ["hospital_0", "hospital_1", "hospital_2"])
    assert mean(summary, "zero_shot") > 0.8
    assert mean(summary, "private") > mean(summary, "zero_shot")
    assert summary["final"]["global_test"]["accuracy"]["zero_shot"] == pytest.approx(0.464, abs=0.01)
    rows = list(csv.DictReader((out / "predictions.csv").open()))
    assert len(rows) == 394
    for word in ("shared", "ensemble", "bytes sent", "hospital_1", "predict --bundle"):
        assert word in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--data", "nowhere"], "--data nowhere: there is no such folder"),
        (["--data", "deploy"], "no class folders"),
        (["--pretrained", "b", "--bundle", "{bundle}"], "not both"),
        (["--broker", "localhost"], "expected host:port"),
        (["--method", "fedmedclap"], "unknown method"),
        (["--codec", "gzip"], "unknown codec"),
        (["--bundle", "docs"], "--bundle docs: no bundle"),
        (["--out", "README.md"], "is a file"),
        (["--out", "docs"], "is not empty"),
    ],
)
def test_wrong_input_is_one_line_and_code_2(arguments, words, tmp_path):
    if "--out" not in arguments:
        arguments = [*arguments, "--out", str(tmp_path / "out")]
    (tmp_path / "manifest.json").touch()
    done = demo(*(argument.format(bundle=tmp_path) for argument in arguments))
    assert done.returncode == 2
    assert words in done.stderr.strip().splitlines()[-1]
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_by_default_it_needs_nothing_and_visibly_learns(tmp_path):
    out = tmp_path / "out"
    done = demo("--out", out)
    assert done.returncode == 0, done.stderr + done.stdout
    summary = check_summary(out, 10, ["hospital_0", "hospital_1", "hospital_2"])
    assert mean(summary, "shared") > mean(summary, "zero_shot") + 0.15
    assert mean(summary, "ensemble") > mean(summary, "shared") + 0.01
    assert summary["final"]["global_test"]["accuracy"]["shared"] > 0.8


@pytest.mark.slow
def test_in_a_terminal_the_page_stays_while_somebody_looks_at_it(tmp_path):
    """A person needs longer to understand a page than ten rounds take."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "fedmedclip", "demo", "--rounds", "1", "--out", str(tmp_path / "out")]
    running = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, cwd=ROOT)
    os.close(theirs)
    said = b""

    def read_until(pattern):
        nonlocal said
        while (found := re.search(pattern, said)) is None:
            said += os.read(ours, 4096)
        return found

    try:
        address = read_until(rb"watch it live: (http://\S+)\r\n")[1].decode()
        with urllib.request.urlopen(f"{address}events") as following:
            read_until(rb"the page stays while you look at it")
            assert running.poll() is None
            with urllib.request.urlopen(f"{address}api/status") as answer:
                assert json.load(answer)["finished"]
            following.close()
        assert running.wait(30.0) == 0
    finally:
        running.kill()
        running.wait()
        os.close(ours)
