"""`fedmedclip calibrate`, and what `predict` and `evaluate` say with heads that were calibrated."""

import csv
import json
import os

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from fedmedclip.command import app
from fedmedclip.edge_client.heads.heads_file import Heads, load_heads, save_heads
from fedmedclip.edge_client.inference.classifier import load
from fedmedclip.protocol.errors import HeadError, InvalidInputError
from fedmedclip.protocol.heads.head import head_digest
from fedmedclip.protocol.heads.heads_signature import heads_signer
from fedmedclip.protocol.heads.shared_heads import initial_shared_head
from tests.edge_client.adaptation.conftest import scans_of, statistics_of
from tests.edge_client.conftest import CLASS_NAMES, random_pixels

PER_CLASS = 20


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Scans of three classes, whose classes are hard to tell apart; three of one patient each."""
    folder = tmp_path_factory.mktemp("labelled")
    images = scans_of(3, PER_CLASS, contrast=0.12)
    for name in CLASS_NAMES:
        (folder / name).mkdir()
    for number, image in enumerate(images):
        name = CLASS_NAMES[number // PER_CLASS]
        Image.fromarray(image).save(folder / name / f"{number:03}.png")
    return folder


@pytest.fixture(scope="module")
def shared(tiny_bundle):
    return statistics_of(tiny_bundle, scans_of(1, 40, contrast=0.12))


@pytest.fixture
def heads(tiny_bundle, shared, tmp_path):
    path = tmp_path / "clinic.heads"
    save_heads(path, Heads("one-message", shared, None, "trial", "", 2), tiny_bundle)
    return path


def run(*arguments):
    result = CliRunner().invoke(app, [*map(str, arguments), "--insecure"])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.stdout


@pytest.fixture
def calibrate(tiny_bundle, heads, data, tmp_path):
    """Return a function that calibrates the heads; it gives the file and what was said as JSON."""

    def calibrated(*options, heads=heads, output=tmp_path / "own.safetensors"):
        said = run("calibrate", data, "-b", tiny_bundle.folder, "-H", heads, "-o", output, "--json", *options)
        return output, json.loads(said)

    return calibrated


def test_heads_of_the_centre_say_what_they_cannot_rule_out(calibrate, tiny_bundle, heads, data):
    output, found = calibrate()
    assert (found["level"], found["kind"], found["class_conditional"]) == (0.9, "lac", False)
    assert found["images"] == 3 * PER_CLASS
    assert found["novelty"]["of"] == "federation"
    assert found["classes"][0]["images"] == PER_CLASS
    before, after = load_heads(heads, tiny_bundle), load_heads(output, tiny_bundle)
    assert head_digest(before.shared) == head_digest(after.shared)
    assert (after.site, after.version, after.private) == ("", 2, None)
    assert heads_signer(output).hex() == found["signed_by"]
    assert output.stat().st_mode & 0o777 == 0o600
    with load(tiny_bundle.folder, output, insecure=True) as classifier:
        answers = classifier.predict(data)
        noise = classifier.predict(random_pixels(77))
        level = classifier.level
    held = [answer.path.split("/")[-2] in answer.prediction_set for answer in answers]
    assert level == 0.9 <= np.mean(held)
    assert np.mean([len(answer.prediction_set) for answer in answers]) < len(CLASS_NAMES)
    assert all(answer.outcome == "answered" and answer.distance <= 1 for answer in answers)
    assert all(answer.label in answer.prediction_set for answer in answers)
    (strange,) = noise
    assert (strange.outcome, strange.label, strange.prediction_set) == (
        "unlike the training images", None, CLASS_NAMES,
    )  # fmt: skip
    assert strange.distance > 1
    assert sum(strange.probabilities.values()) == pytest.approx(1, abs=1e-5)


def test_pixels_once_embedding_once_everything(calibrate, tiny_bundle):
    """What a service does in two steps is what `predict` does in one."""
    output, _ = calibrate()
    pixels = scans_of(4, 2)
    with load(tiny_bundle.folder, output, insecure=True) as classifier:
        embeddings = classifier.encode(pixels)
        found = classifier.classify(embeddings)
        predictions = classifier.predict(pixels)
    assert embeddings.shape == (len(pixels), tiny_bundle.manifest.embedding_size)
    for one, other in zip(found, predictions, strict=True):
        assert (one.label, one.outcome, one.prediction_set) == (
            other.label, other.outcome, other.prediction_set,
        )  # fmt: skip


def test_heads_without_statistics_learn_what_was_seen_from_half_of_the_images(
    calibrate, tiny_bundle, tmp_path
):
    size, classes = tiny_bundle.manifest.embedding_size, len(CLASS_NAMES)
    path = tmp_path / "probe.heads"
    probe = Heads("linear-probe", initial_shared_head("linear-probe", size, 0, classes), None, "t", "a", 1)
    save_heads(path, probe, tiny_bundle)
    output, found = calibrate("--kind", "aps", heads=path)
    assert (found["novelty"]["of"], found["site"]) == ("site", "a")
    first = output.read_bytes()
    calibrate("--kind", "aps", "--force", heads=path)
    assert output.read_bytes() == first


def test_few_patients_are_said_and_rule_nothing_out(calibrate, tiny_bundle, data, tmp_path):
    groups = tmp_path / "groups.csv"
    rows = [
        f"{os.path.relpath(path, tmp_path)},{path.parent.name}-{int(path.stem) % 3}"
        for path in sorted(data.rglob("*.png"))
    ]
    groups.write_text("\n".join(["file,group", *rows]) + "\n")
    output, found = calibrate("--groups", groups, "--class-conditional")
    assert found["groups"] == 9
    assert [each["threshold"] for each in found["classes"]] == [None] * 3
    assert found["mean_set_size"] == 3
    assert "every class is in every set" in found["remarks"][0]
    assert "no less than 10.0% false alarms" in found["remarks"][1]
    again = ["-H", output, "-o", tmp_path / "again", "--groups", groups]
    said = run("calibrate", data, "-b", tiny_bundle.folder, *again)
    for words in ("images    60 in 9 groups", "Worst score", "it stays at this site"):
        assert words in said


def test_what_predict_and_evaluate_write(calibrate, tiny_bundle, data, tmp_path):
    output, _ = calibrate("--level", "0.95")
    strange = tmp_path / "strange.png"
    Image.fromarray(random_pixels(77)).save(strange)
    given = ["-b", tiny_bundle.folder, "-H", output]
    *rows, last = csv.DictReader(run("predict", data, strange, *given).splitlines())
    assert list(last)[-4:] == ["outcome", "prediction_set", "distance", "milliseconds"]
    assert (last["label"], last["outcome"]) == ("", "unlike the training images")
    assert last["prediction_set"] == "glioma|healthy|stroke"
    assert {row["outcome"] for row in rows} == {"answered"}
    assert all(row["label"] in row["prediction_set"].split("|") for row in rows)
    line = json.loads(run("predict", strange, *given, "--format", "jsonl"))
    assert (line["label"], line["prediction_set"]) == (None, list(CLASS_NAMES))
    assert line["distance"] > 1
    said = run("evaluate", data, *given, "-o", tmp_path / "figures.json")
    assert "Prediction sets of level 0.95" in said
    figures = json.loads((tmp_path / "figures.json").read_bytes())["assurance"]
    assert (figures["level"], figures["images"]) == (0.95, 3 * PER_CLASS)
    assert figures["coverage"] >= 0.95
    assert set(figures["coverage_by_class"]) == set(CLASS_NAMES)


def test_adapting_leaves_it_behind_and_says_so(calibrate, tiny_bundle, data, tmp_path):
    output, _ = calibrate()
    adapted = tmp_path / "adapted.safetensors"
    said = run("adapt", data, "-b", tiny_bundle.folder, "-H", output, "-o", adapted)
    assert "prediction sets are those of the heads before" in " ".join(said.split())
    assert load_heads(adapted, tiny_bundle).assurance is None


def test_what_cannot_be_is_one_line(calibrate, tiny_bundle):
    calibrate()
    with pytest.raises(InvalidInputError, match=r"own\.safetensors exists; replace it with --force"):
        calibrate()
    for option, words in (("--level", "level is nan"), ("--false-alarms", "alarms is nan")):
        with pytest.raises(InvalidInputError, match=words):
            calibrate("--force", option, "nan")
    with pytest.raises(HeadError, match="not a heads file"):
        calibrate("--force", heads=tiny_bundle.folder / "manifest.json")
