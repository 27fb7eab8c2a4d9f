"""`fedmedclip predict` and `evaluate` as a person types them: files, exit codes, one line for an error."""

import csv
import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from fedmedclip.edge_client.features.encoder import Encoder
from fedmedclip.edge_client.heads.heads import initial_private_head
from fedmedclip.edge_client.heads.heads_file import Heads, save_heads
from fedmedclip.edge_client.images.opening import read_image
from fedmedclip.edge_client.inference.evaluation import predict
from fedmedclip.protocol.bundle.preprocessing import fit
from fedmedclip.protocol.heads.heads_file import Judgement
from fedmedclip.protocol.heads.shared_heads import initial_shared_head
from tests import ROOT

EXTRAS = ("torch", "sklearn", "scipy", "onnx", "open_clip", "matplotlib", "amqtt", "pydicom", "tokenizers")


def fedmedclip(*arguments, without_extras=False, cwd=ROOT):
    """Run the command; `without_extras` makes imports of what extras bring fail, as in a base install."""
    blocked = f"sys.modules.update(dict.fromkeys({EXTRAS}))\n" if without_extras else ""
    code = f"import sys\n{blocked}sys.argv = ['fedmedclip', *{[str(argument) for argument in arguments]!r}]\n"
    return subprocess.run(
        [sys.executable, "-c", code + "from fedmedclip.command import main; main()"],
        capture_output=True, text=True, cwd=cwd, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def heads(tmp_path_factory, tiny_bundle):
    size, classes = tiny_bundle.manifest.embedding_size, len(tiny_bundle.manifest.class_names)
    made = Heads(
        "fedmedclip",
        initial_shared_head("fedmedclip", size, 1),
        initial_private_head("fedmedclip", size, classes, 1, "site-a"),
        "trial", "site-a", 3,
    )  # fmt: skip
    path = tmp_path_factory.mktemp("heads") / "heads.safetensors"
    save_heads(path, made, tiny_bundle)
    return path, made


def one_line(done):
    lines = done.stderr.strip().splitlines()
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert lines[-1].startswith("fedmedclip: ")
    return lines[-1]


@pytest.mark.parametrize("output_format", ["csv", "jsonl"])
def test_predict_without_extras_gives_what_the_heads_give(
    tmp_path, tiny_bundle, class_folders, heads, output_format
):
    path, made = heads
    target = tmp_path / "predictions"
    done = fedmedclip(
        "predict", "--bundle", tiny_bundle.folder, "--heads", path, class_folders / "glioma",
        class_folders / "stroke" / "*.png", "--format", output_format, "-o", target, without_extras=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    if output_format == "csv":
        rows = list(csv.DictReader(target.open()))
        probabilities = [
            [float(row[f"probability_{name}"]) for name in tiny_bundle.manifest.class_names] for row in rows
        ]
    else:
        rows = [json.loads(line) for line in target.read_text().splitlines()]
        probabilities = [list(row["probabilities"].values()) for row in rows]
    images = [*sorted((class_folders / "glioma").iterdir()), *sorted((class_folders / "stroke").iterdir())]
    assert [row["path"] for row in rows] == [str(image) for image in images]
    preprocessing = tiny_bundle.manifest.preprocessing
    with Encoder(tiny_bundle) as encoder:
        embeddings = encoder.encode(np.stack([fit(read_image(image), preprocessing) for image in images]))
    expected = predict(made, tiny_bundle, embeddings)
    np.testing.assert_allclose(probabilities, expected.ensemble, atol=2e-6)
    np.testing.assert_allclose(
        [float(row["ensemble_weight"]) for row in rows], expected.ensemble_weight, atol=2e-6
    )
    names = np.array(tiny_bundle.manifest.class_names)
    assert [row["label"] for row in rows] == names[expected.ensemble.argmax(axis=1)].tolist()
    assert all(float(row["milliseconds"]) > 0 for row in rows)


def test_predict_without_extras_leaves_the_answer_to_zero_shot_where_that_was_better(
    tmp_path, tiny_bundle, class_folders, heads
):
    # Longer than a line: what is said of a file stands in one.
    path = tmp_path / f"judged-{'x' * 80}.safetensors"
    save_heads(path, replace(heads[1], judgement=Judgement(40, 0.5, 0.75)), tiny_bundle)
    images = class_folders / "glioma"
    bare = fedmedclip("predict", "--bundle", tiny_bundle.folder, images, "--provenance", "none")
    done = fedmedclip("predict", "--bundle", tiny_bundle.folder, "--heads", path, images, without_extras=True)
    assert done.returncode == 0, done.stderr
    answers = [[row[:-1] for row in csv.reader(run.stdout.splitlines())] for run in (bare, done)]
    assert answers[0] == answers[1]
    assert "their site found zero-shot better on its validation split; zero-shot answers" in done.stderr
    assert "predicted by zero-shot, which head version 3 of federation trial" in done.stderr
    evaluated = fedmedclip("evaluate", class_folders, "--bundle", tiny_bundle.folder, "--heads", path)
    said = "their site found zero-shot better on its validation split; zero-shot answers"
    assert f"{path}: {said}" in evaluated.stdout.splitlines()


def test_predict_skips_what_it_cannot_read_and_says_so(tmp_path, tiny_bundle, class_folders):
    folder = class_folders / "stroke"
    (folder / "empty.png").touch()
    (folder / "cut.png").write_bytes((folder / "00.png").read_bytes()[:200])
    Image.new("LAB", (40, 40)).save(folder / "print.tif")
    done = fedmedclip("predict", "--bundle", tiny_bundle.folder, folder)
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 1 + 3
    assert "3 skipped" in done.stderr
    for name in ("empty.png", "cut.png", "print.tif"):
        assert name in done.stderr


def test_predict_says_what_encodes_where_a_provider_is_named(tiny_bundle, class_folders):
    arguments = ("predict", "--bundle", tiny_bundle.folder, class_folders, "--provider")
    done = fedmedclip(*arguments, "QNNExecutionProvider", without_extras=True)
    assert done.returncode == 0
    _, warning, said, *_ = done.stderr.splitlines()
    assert warning.startswith("QNNExecutionProvider is not used: the installed ONNX Runtime has only ")
    assert said == "CPUExecutionProvider encodes the images"
    assert "unknown execution provider 'Cuda'" in one_line(fedmedclip(*arguments, "Cuda"))


def test_strict_makes_an_unusable_file_fatal(tmp_path, tiny_bundle, class_folders):
    (class_folders / "stroke" / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (class_folders / "stroke" / "folder.dcm").mkdir()
    target = tmp_path / "out.csv"
    done = fedmedclip("predict", "--bundle", tiny_bundle.folder, class_folders, "-o", target)
    assert done.returncode == 0
    assert "folder.dcm: not a file" in done.stderr
    done = fedmedclip("predict", "--bundle", tiny_bundle.folder, class_folders, "-o", target, "--strict")
    assert "cut.png cannot be used" in one_line(done)


def test_predict_with_nothing_readable_fails(tmp_path, tiny_bundle):
    (tmp_path / "empty.png").touch()
    target = tmp_path / "out.csv"
    done = fedmedclip("predict", "--bundle", tiny_bundle.folder, tmp_path, "-o", target)
    assert "no image could be read" in one_line(done)


def test_wrong_paths_and_files_are_one_line(tmp_path, tiny_bundle, make_bundle, class_folders, heads):
    path, _ = heads
    other = make_bundle(tmp_path / "other", seed=9).folder
    broken = make_bundle(tmp_path / "broken").folder
    with (broken / "image_encoder.onnx").open("ab") as file:
        file.write(b"x")
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(path.read_bytes()[:1000])
    image = class_folders / "glioma" / "00.png"
    cases = {
        ("--bundle", tmp_path / "nowhere", image): "nowhere: there is no such folder",
        ("--bundle", broken, image): "has SHA-256",
        ("--bundle", other, "--heads", path, image): "belong to bundle",
        ("--bundle", tiny_bundle.folder, "--heads", damaged, image): "damaged",
        ("--bundle", tiny_bundle.folder, "--heads", tmp_path / "no.safetensors", image): "no.safetensors",
        ("--bundle", tiny_bundle.folder, tmp_path / "no.png"): "no.png does not exist",
        ("--bundle", tiny_bundle.folder, image, "-o", tmp_path / "no" / "out.csv"): "out.csv",
    }
    for arguments, words in cases.items():
        assert words in one_line(fedmedclip("predict", *arguments)), arguments


def test_evaluate_reports_every_classifier(tmp_path, tiny_bundle, class_folders, heads):
    target = tmp_path / "figures.json"
    done = fedmedclip(
        "evaluate", class_folders, "--bundle", tiny_bundle.folder, "--heads", heads[0], "-o", target,
        without_extras=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(target.read_text())
    assert report["images"] == 21
    assert list(report["classifiers"]) == ["zero_shot", "shared", "private", "ensemble"]
    for name, figures in report["classifiers"].items():
        confusion = np.array(figures["confusion"])
        assert confusion.sum() == 21
        assert figures["accuracy"] == pytest.approx(np.trace(confusion) / 21)
        assert name.replace("_", "-") in done.stdout


def test_evaluate_names_unknown_classes(tiny_bundle, class_folders):
    (class_folders / "fracture").mkdir()
    Image.new("RGB", (9, 9)).save(class_folders / "fracture" / "1.png")
    assert "fracture" in one_line(fedmedclip("evaluate", class_folders, "--bundle", tiny_bundle.folder))
