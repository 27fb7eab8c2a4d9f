"""`fedmedclip data` as a person types it."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest

from fedmedclip.command import app
from fedmedclip.protocol.errors import FedMedClipError
from tests import ROOT
from tests.edge_client.test_commands import fedmedclip
from tests.test_rooms import modules_after


def test_prints_tables_and_remarks_without_extras(tmp_path, odd_files):
    done = fedmedclip("data", odd_files, "--out", tmp_path / "out", without_extras=True)
    assert done.returncode == 0, done.stderr
    for words in ("glioma", "likely label errors", "healthy/brighter.png", "truncated", "healthy/cut.png"):
        assert words in done.stdout
    assert f"to stay at this site: {tmp_path}/out/data.html" in done.stdout.replace("\n", "")
    # Without the extra for DICOM its file is named, with what to install.
    assert "fedmedclip-edge[dicom]" in done.stdout.replace("\n", "")


def test_json_is_all_there_is_on_standard_output(odd_files):
    done = fedmedclip("data", odd_files, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert {pair["second"] for pair in found["across"]} == {"healthy/brighter.png"}
    assert found["classes"][0]["parts"]["train"]["images"] > 0
    assert found["skipped"] == [{"reason": "truncated", "count": 1, "files": ["healthy/cut.png"]}]


def test_never_imports_torch_or_the_encoder(scans, tmp_path):
    modules = modules_after(["data", str(scans), "--out", str(tmp_path / "out")])
    assert "PIL" in modules
    assert not modules & {"torch", "onnxruntime", "onnx", "paho", "scipy", "sklearn"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["{tmp}/nowhere"], "does not exist; give a folder of class folders"),
        (["{data}", "--bundle", "{tmp}"], "--bundle {tmp}: no bundle"),
        (
            ["{data}", "--classes", "{tmp}/c.toml", "--bundle", "{bundle}"],
            "give --bundle or --classes, not both",
        ),
        (["{data}", "--split", "{tmp}/split.csv"], "--split {tmp}/split.csv: there is no such file"),
        (["{data}", "--groups", "{tmp}/c.toml"], "lacks the column 'file'"),
        (["{data}", "--group-column", "patient"], "is no CSV file and has no column 'patient'"),
        (["{data}", "--classes", "{tmp}/c.toml"], "not a class of the bundle"),
        (["{data}", "--out", "{tmp}/c.toml/x"], "--out {tmp}/c.toml/x"),
        (["{data}", "--strict"], "strict: image"),
    ],
)
def test_says_in_one_line_what_cannot_be_used(tmp_path, odd_files, tiny_bundle, arguments, words):
    (tmp_path / "c.toml").write_text('[classes]\nstroke = ["stroke"]\nhealthy = ["healthy"]\n')
    places = {"tmp": tmp_path, "data": odd_files, "bundle": tiny_bundle.folder}
    with pytest.raises(FedMedClipError, match=re.escape(words.format_map(places))):
        app(["data", *(argument.format_map(places) for argument in arguments)], standalone_mode=False)


def test_hostile_names_reach_neither_terminal_nor_page(tmp_path, scans):
    names = [b"caf\xe9.png", b"line\nbreak.png", b"red\x1b[31m.png", b"<img src=x onerror=alert(1)>.png"]
    for name in names:
        shutil.copy(scans / "glioma" / "00.png", os.path.join(os.fsencode(scans / "healthy"), name))
    folder = tmp_path / os.fsdecode(b"caf\xe9[red]\nforged\x1b[31m")
    scans.rename(folder)
    done = fedmedclip("data", folder, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert not {"\x1b", "\udce9"} & set(done.stdout)
    assert r"caf\xe9[red]\nforged\x1b[31m" in done.stdout.replace("\n", "")
    page = (tmp_path / "out" / "data.html").read_text(encoding="utf-8")
    assert "<img src=x" not in page
    assert "&lt;img src=x onerror=alert(1)&gt;.png" in page
    assert r"line\nbreak.png" in page
    json.loads((tmp_path / "out" / "data.json").read_text(encoding="utf-8"))


def test_an_interrupt_ends_it_without_a_traceback_or_half_a_page(tmp_path, scans):
    for number in range(3000):
        os.link(scans / "glioma" / "01.png", scans / "glioma" / f"more-{number}.png")
    command = [sys.executable, "-m", "fedmedclip", "data", str(scans), "--out", str(tmp_path / "out")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        reading = f"/proc/{process.pid}/task"
        while process.poll() is None and len(os.listdir(reading)) < 4:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert b"Traceback" not in errors
    assert not (tmp_path / "out").exists()
