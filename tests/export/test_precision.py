"""What each precision keeps, how int8 is chosen on images, and where an export stops."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fedmedclip.edge_client.features.encoder import Encoder
from fedmedclip.export.agreement import agreement_of_decisions, measure_agreement
from fedmedclip.export.bundle import export_bundle
from fedmedclip.export.parity import ParityError
from fedmedclip.export.precision import Limits
from fedmedclip.protocol.bundle.bundle import Bundle, ClassPrompts, open_bundle
from fedmedclip.protocol.errors import InvalidInputError


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory, prompts: ClassPrompts) -> Path:
    """Four images that are not square in a folder for each class."""
    folder = tmp_path_factory.mktemp("labelled")
    generator = np.random.default_rng(0)
    for name in prompts.classes:
        (folder / name).mkdir()
        for index in range(4):
            pixels = generator.integers(0, 256, (30, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{index}.png")
    return folder


@pytest.fixture(scope="module")
def calibrated(
    labelled: Path, tiny_model: str, prompts: ClassPrompts, tmp_path_factory: pytest.TempPathFactory
) -> Bundle:
    out = tmp_path_factory.mktemp("calibrated") / "bundle"
    limits = Limits(min_agreement=0.5)
    return export_bundle(tiny_model, None, prompts, out, calibrate=labelled, limits=limits)


def test_calibration_reports_what_it_tried_and_chose(calibrated: Bundle) -> None:
    quantization = calibrated.manifest.quantization
    assert quantization is not None
    assert quantization.agreement is not None
    agreement = quantization.agreement
    assert agreement.images == 12
    assert 0.97 < agreement.cosine_min <= agreement.cosine_mean <= 1
    assert agreement.probe is not None
    schemes = [candidate.scheme for candidate in quantization.tried]
    assert {"dynamic, weights int8 per tensor", "dynamic, weights int8 per channel"} <= set(schemes)
    # Of eight products, one and two of the most sensitive ones were left in float.
    assert [len(candidate.in_float) for candidate in quantization.tried[2:]] == [1, 2]
    assert agreement in [candidate.agreement for candidate in quantization.tried]
    best = max(agreement_of_decisions(candidate.agreement) for candidate in quantization.tried)
    assert agreement_of_decisions(agreement) >= best - 0.005


@pytest.mark.slow
def test_calibrated_export_gives_the_same_bytes_again(
    calibrated: Bundle, labelled: Path, tiny_model: str, prompts: ClassPrompts, tmp_path: Path
) -> None:
    limits = Limits(min_agreement=0.5)
    again = export_bundle(tiny_model, None, prompts, tmp_path / "b", calibrate=labelled, limits=limits)
    assert again.digest == calibrated.digest


@pytest.mark.parametrize(
    ("limits", "advice"),
    [
        (Limits(min_cosine=1.0, min_agreement=0), "--min-cosine"),
        (Limits(min_agreement=1.01), "--min-agreement"),
    ],
)
def test_an_export_that_loses_too_much_stops_with_advice(
    limits: Limits, advice: str, labelled: Path, tiny_model: str, prompts: ClassPrompts, tmp_path: Path
) -> None:
    with pytest.raises(ParityError, match=rf"use --precision fp16, .*{advice}") as caught:
        export_bundle(tiny_model, None, prompts, tmp_path / "b", calibrate=labelled, limits=limits)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_calibration_is_for_int8_only_and_needs_images(
    tiny_model: str, prompts: ClassPrompts, tmp_path: Path
) -> None:
    with pytest.raises(InvalidInputError, match=r"--calibrate is for --precision int8, not fp16"):
        export_bundle(tiny_model, None, prompts, tmp_path / "b", "fp16", calibrate=tmp_path)
    with pytest.raises(InvalidInputError, match=r"no readable image .*--calibrate"):
        export_bundle(tiny_model, None, prompts, tmp_path / "b", calibrate=tmp_path)


@pytest.mark.slow
def test_fp16_is_half_the_size_and_computes_as_fp32(
    tiny_model: str, prompts: ClassPrompts, tmp_path: Path
) -> None:
    bundles = [export_bundle(tiny_model, None, prompts, tmp_path / p, p) for p in ("fp32", "fp16")]  # type: ignore[arg-type]
    sizes = [bundle.image_encoder.stat().st_size for bundle in bundles]
    assert sizes[1] < 0.65 * sizes[0]
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    found = []
    for bundle in bundles:
        with Encoder(bundle, threads=1) as encoder:
            found.append(encoder.encode(pixels))
    np.testing.assert_allclose(found[0], found[1], atol=2e-3)
    np.testing.assert_array_equal(bundles[0].class_embeddings, bundles[1].class_embeddings)
    again = export_bundle(tiny_model, None, prompts, tmp_path / "again", "fp16")
    assert again.digest == bundles[1].digest


@pytest.mark.slow
def test_a_large_encoder_lies_in_two_files(
    tiny_model: str, prompts: ClassPrompts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = export_bundle(tiny_model, None, prompts, tmp_path / "whole", "fp32")
    monkeypatch.setattr("fedmedclip.export.onnx_weights.MAX_WEIGHT_BYTES_INSIDE", 10_000)
    split = export_bundle(tiny_model, None, prompts, tmp_path / "split", "fp32")
    assert "image_encoder.onnx.data" in split.manifest.files
    assert split.image_encoder.stat().st_size < 100_000
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    with Encoder(whole, threads=1) as one, Encoder(open_bundle(split.folder), threads=1) as other:
        np.testing.assert_array_equal(one.encode(pixels), other.encode(pixels))
    export_bundle(tiny_model, None, prompts, tmp_path / "split", "fp32", force=True)


def test_agreement_of_known_embeddings() -> None:
    classes = np.eye(4, dtype=np.float32)[:2]
    reference = np.eye(4, dtype=np.float32)[[0, 1, 0, 1]]
    found = np.eye(4, dtype=np.float32)[[0, 1, 0, 0]]
    agreement = measure_agreement(reference, found, classes, np.array([0, 1, 0, 1]))
    assert (agreement.cosine_min, agreement.cosine_mean, agreement.zero_shot) == (0, 0.75, 0.75)
    assert (agreement.probe, agreement.probe_accuracy_fp32, agreement.probe_accuracy) == (0.75, 1, 0.75)
    assert measure_agreement(reference, found, classes, None).probe is None


def test_every_architecture_of_open_clip_is_counted() -> None:
    from fedmedclip.export.architectures import PARAMETERS, architectures

    found = {architecture.name: architecture for architecture in architectures()}
    assert found["ViT-B-32"].parameters == 151_277_313
    assert (found["ViT-B-32"].embedding_size, found["ViT-B-32"].image_width) == (512, 224)
    assert "openai" in found["ViT-B-32"].tags
    counted = {name for name, architecture in found.items() if architecture.parameters is not None}
    assert counted == json.loads(PARAMETERS.read_text()).keys()
