"""Where predictions go, and what answers for them: bundle, heads, software."""

import csv
import hashlib
import json
import os
import stat
import subprocess
import sys
import threading
from importlib.metadata import version

import pytest

from tests import ROOT
from tests.edge_client.test_commands import fedmedclip, heads, one_line  # noqa: F401


@pytest.fixture
def arguments(tiny_bundle, class_folders, heads):  # noqa: F811
    return ["predict", "--bundle", tiny_bundle.folder, "--heads", heads[0], class_folders / "stroke"]


@pytest.fixture
def expected(tiny_bundle, heads):  # noqa: F811
    return {
        "software": f"fedmedclip-edge {version('fedmedclip-edge')}",
        "bundle": tiny_bundle.digest.hex(),
        "model": "tiny",
        "precision": "fp32",
        "heads": hashlib.sha256(heads[0].read_bytes()).hexdigest(),
        "method": "fedmedclip",
        "federation": "trial",
        "site": "site-a",
        "head_version": 3,
    }


def test_each_line_of_json_carries_its_provenance(tmp_path, arguments, expected):
    target = tmp_path / "out.jsonl"
    done = fedmedclip(*arguments, "--format", "jsonl", "-o", target)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in target.read_text().splitlines()]
    assert rows
    assert all(row["provenance"] == expected for row in rows)
    assert not target.with_name("out.jsonl.provenance.json").exists()


def test_a_csv_file_has_a_companion_and_stays_a_plain_csv(tmp_path, arguments, expected):
    target = tmp_path / "out.csv"
    done = fedmedclip(*arguments, "-o", target)
    assert done.returncode == 0, done.stderr
    assert target.read_text().startswith("path,label,")
    companion = json.loads((tmp_path / "out.csv.provenance.json").read_text())
    assert companion["provenance"] == expected
    assert companion["sha256"] == hashlib.sha256(target.read_bytes()).hexdigest()
    assert (companion["predicted"], companion["skipped"]) == (len(target.read_text().splitlines()) - 1, 0)


def test_in_the_header_or_on_standard_error_or_nowhere(tmp_path, arguments, expected):
    done = fedmedclip(*arguments, "--provenance", "header")
    comment, *rows = done.stdout.splitlines()
    assert json.loads(comment.removeprefix("# ")) == expected
    assert {row["label"] for row in csv.DictReader(rows)}
    done = fedmedclip(*arguments)
    assert "head version 3 of federation trial, site site-a" in done.stderr
    assert done.stdout.startswith("path,")
    done = fedmedclip(*arguments, "--provenance", "none", "-o", tmp_path / "out.csv")
    assert not (tmp_path / "out.csv.provenance.json").exists()
    assert "federation" not in done.stderr


def test_zero_shot_says_so(tiny_bundle, class_folders):
    done = fedmedclip(
        "predict", "--bundle", tiny_bundle.folder, class_folders / "stroke", "--format", "jsonl"
    )
    provenance = json.loads(done.stdout.splitlines()[0])["provenance"]
    assert provenance["bundle"] == tiny_bundle.digest.hex()
    assert not {"heads", "federation", "head_version"} & set(provenance)


def test_figures_carry_it_too(tmp_path, tiny_bundle, class_folders, heads, expected):  # noqa: F811
    target = tmp_path / "figures.json"
    fedmedclip("evaluate", class_folders, "--bundle", tiny_bundle.folder, "--heads", heads[0], "-o", target)
    assert json.loads(target.read_text())["provenance"] == expected


def test_a_link_a_pipe_and_standard_output_stay_what_they_are(tmp_path, arguments):
    real, link, pipe = tmp_path / "real.csv", tmp_path / "link.csv", tmp_path / "pipe"
    real.write_text("earlier")
    link.symlink_to(real)
    assert fedmedclip(*arguments, "-o", link).returncode == 0
    assert link.is_symlink()
    assert real.read_text().startswith("path,")

    os.mkfifo(pipe)
    received = []
    reader = threading.Thread(target=lambda: received.append(pipe.read_text()))
    reader.start()
    done = fedmedclip(*arguments, "-o", pipe)
    reader.join(20)
    assert received[0].startswith("path,")
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert "predicted by head version 3" in done.stderr

    before = os.readlink("/dev/stdout")
    with (tmp_path / "log").open("w") as log:
        log.write("earlier\n")
        log.flush()
        command = [sys.executable, "-m", "fedmedclip", *map(str, arguments), "-o", "/dev/stdout"]
        subprocess.run(command, stdout=log, stderr=subprocess.PIPE, cwd=ROOT, check=True)
    assert (tmp_path / "log").read_text().startswith("earlier\npath,")
    assert os.readlink("/dev/stdout") == before


def test_a_deployed_model_has_to_be_a_file(tmp_path, tiny_bundle):
    os.mkfifo(tmp_path / "pipe")
    words = one_line(fedmedclip("deploy", "--bundle", tiny_bundle.folder, "--out", tmp_path / "pipe"))
    assert "the model is checked before it is in place" in words
