"""An exported bundle does what open_clip's model does, byte for byte the same every time."""

import resource
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from fedmedclip.edge_client.features.self_test import run_self_test
from fedmedclip.edge_client.heads.layers import are_unit_rows
from fedmedclip.export.bundle import export_bundle
from fedmedclip.export.model import load_model
from fedmedclip.export.parity import INT8_COSINE_MIN, ParityError
from fedmedclip.export.prompts import read_class_prompts
from fedmedclip.protocol.bundle.bundle import Bundle, ClassPrompts, open_bundle
from fedmedclip.protocol.bundle.preprocessing import fit
from fedmedclip.protocol.errors import InvalidInputError
from tests import ROOT

SIZES = [(60, 40), (33, 70), (200, 31), (41, 40), (17, 90)]


def images(seed: int = 0) -> list[Image.Image]:
    generator = np.random.default_rng(seed)
    return [
        Image.fromarray(
            generator.integers(0, 256, (height // 4 + 1, width // 4 + 1, 3), dtype=np.uint8)
        ).resize((width, height), Image.Resampling.BICUBIC)
        for width, height in SIZES
    ]


def run_encoder(bundle: Bundle, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    import onnxruntime

    session = onnxruntime.InferenceSession(bundle.image_encoder, providers=["CPUExecutionProvider"])
    result: npt.NDArray[np.float32] = session.run(["embedding"], {"image": pixels})[0]
    return result


def open_clip_embeddings(model: str, batch: list[Image.Image]) -> npt.NDArray[np.float32]:
    """Unit embeddings by open_clip alone: its own loading, preprocessing and model."""
    import open_clip
    import torch

    network, transform = open_clip.create_model_from_pretrained(model)
    with torch.no_grad():
        features = network.eval().encode_image(torch.stack([transform(image) for image in batch]))
    embeddings: npt.NDArray[np.float32] = torch.nn.functional.normalize(features, dim=-1).numpy()
    return embeddings


def require_equal_to_open_clip(bundle: Bundle, model: str) -> None:
    pixels = np.stack([fit(image, bundle.manifest.preprocessing) for image in images()])
    found, expected = run_encoder(bundle, pixels), open_clip_embeddings(model, images())
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    if bundle.manifest.precision == "fp32":
        np.testing.assert_allclose(found, expected, atol=1e-4)
    else:
        assert (found * expected).sum(axis=1).min() > INT8_COSINE_MIN


def test_encoder_equals_open_clip(tiny_bundle: Bundle, tiny_model: str) -> None:
    require_equal_to_open_clip(tiny_bundle, tiny_model)


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"resize_mode": "squash", "interpolation": "bilinear", "mean": 0.5, "std": 0.5},
        {"resize_mode": "longest", "fill_color": 114},
        {"image_size": [24, 40], "quick_gelu": True},
    ],
    ids=["squash", "longest", "wide"],
)
def test_other_preprocessing_equals_open_clip(
    make_model: Any, prompts: ClassPrompts, tmp_path: Path, settings: dict[str, Any]
) -> None:
    model = make_model(**settings)
    bundle = export_bundle(model, None, prompts, tmp_path / "bundle", "fp32")
    assert bundle.manifest.parity.pixel_max_difference == 0
    require_equal_to_open_clip(bundle, model)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_trained_residual_network_equals_open_clip(shared: Path, tmp_path: Path, precision: Any) -> None:
    model = f"local-dir:{shared / 'models' / 'bench-clip'}"
    prompts = read_class_prompts(shared / "data" / "brain_tumor")
    bundle = export_bundle(model, None, prompts, tmp_path / "bundle", precision)
    assert bundle.manifest.model == "local-dir:bench-clip"
    require_equal_to_open_clip(bundle, model)


def test_embeddings_can_keep_the_length_that_the_model_gives_them(
    tiny_model: str, prompts: ClassPrompts, tmp_path: Path
) -> None:
    import open_clip
    import torch

    bundle = export_bundle(tiny_model, None, prompts, tmp_path / "bundle", "fp32", own_length=True)
    assert bundle.manifest.own_length is True
    network, _, transform = open_clip.create_model_and_transforms(tiny_model)
    with torch.no_grad():
        batch = torch.stack([transform(image) for image in images()])
        expected = network.eval().encode_image(batch, normalize=False).numpy()
    assert not are_unit_rows(expected)
    found = run_encoder(bundle, np.stack([fit(image, bundle.manifest.preprocessing) for image in images()]))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    agreement = run_self_test(bundle)
    assert agreement is not None
    assert agreement.passed
    with pytest.raises(InvalidInputError, match="--own-length is for --precision fp32 or fp16"):
        export_bundle(tiny_model, None, prompts, tmp_path / "b", "int8", own_length=True)


def test_a_bundle_of_unit_embeddings_says_nothing_of_their_length(tiny_bundle: Bundle) -> None:
    assert b"own_length" not in (tiny_bundle.folder / "manifest.json").read_bytes()
    embeddings = run_encoder(
        tiny_bundle, np.stack([fit(image, tiny_bundle.manifest.preprocessing) for image in images()])
    )
    assert are_unit_rows(embeddings)


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_batch_is_free(tiny_bundle: Bundle, batch: int) -> None:
    pixels = np.stack([fit(image, tiny_bundle.manifest.preprocessing) for image in images()])
    together = run_encoder(tiny_bundle, pixels)
    found = run_encoder(tiny_bundle, pixels[:batch])
    assert found.shape == (batch, tiny_bundle.manifest.embedding_size)
    assert found.dtype == np.float32
    # 8-bit activations share one scale over the batch, so there the neighbours show a little.
    tolerance = 1e-5 if tiny_bundle.manifest.precision == "fp32" else 0.05
    np.testing.assert_allclose(found, together[:batch], atol=tolerance)


def test_class_embeddings_average_the_prompts(
    tiny_bundle: Bundle, tiny_model: str, prompts: ClassPrompts
) -> None:
    import open_clip
    import torch

    network = open_clip.create_model(tiny_model).eval().requires_grad_(False)
    texts = [
        "a picture of a no tumor.",
        "a picture of a nothing.",
        "a scan with no tumor.",
        "a scan with nothing.",
    ]
    with torch.no_grad():
        tokens = open_clip.get_tokenizer(tiny_model)(texts)
        embeddings = network.encode_text(tokens, normalize=True).numpy()
    mean = embeddings.mean(axis=0)
    np.testing.assert_allclose(tiny_bundle.class_embeddings[0], mean / np.linalg.norm(mean), atol=1e-6)
    assert tiny_bundle.manifest.class_names == list(prompts.classes) == ["no_tumor", "glioma", "other"]
    assert tiny_bundle.manifest.logit_scale == pytest.approx(float(network.logit_scale.exp()))


@pytest.mark.slow
def test_same_inputs_give_the_same_bytes(
    tiny_bundle: Bundle, tiny_model: str, prompts: ClassPrompts, tmp_path: Path
) -> None:
    again = export_bundle(tiny_model, None, prompts, tmp_path / "again", tiny_bundle.manifest.precision)
    names = sorted(path.name for path in tiny_bundle.folder.iterdir())
    assert sorted(path.name for path in again.folder.iterdir()) == names
    for name in names:
        assert (again.folder / name).read_bytes() == (tiny_bundle.folder / name).read_bytes(), name


def test_bundle_says_nothing_of_the_machine(tiny_bundle: Bundle, tiny_model: str) -> None:
    folder = tiny_model.removeprefix("local-dir:").encode()
    project = str(ROOT).encode()
    for path in tiny_bundle.folder.iterdir():
        content = path.read_bytes()
        assert folder not in content
        assert project not in content


def test_manifest_says_what_is_eight_bit(tiny_bundle: Bundle) -> None:
    quantization = tiny_bundle.manifest.quantization
    if tiny_bundle.manifest.precision == "fp32":
        assert quantization is None
        return
    assert quantization is not None
    # Two layers of query-key-value, output and two MLP products; the projection and the patches stay.
    assert sum(quantization.quantized.values()) == 8
    assert quantization.kept_in_float == {"Conv": 1, "MatMul": 1}
    import onnx

    operators = [node.op_type for node in onnx.load(tiny_bundle.image_encoder).graph.node]
    assert operators.count("MatMulInteger") == 8


def test_registered_name_takes_weights_from_a_file(
    make_model: Any, prompts: ClassPrompts, tmp_path: Path
) -> None:
    import json

    import open_clip

    source = Path(make_model().removeprefix("local-dir:"))
    configuration = json.loads((source / "open_clip_config.json").read_text())["model_cfg"]
    (tmp_path / "tiny-registered.json").write_text(json.dumps(configuration))
    open_clip.add_model_config(tmp_path / "tiny-registered.json")
    weights = source / "open_clip_model.safetensors"
    bundle = export_bundle("tiny-registered", str(weights), prompts, tmp_path / "bundle")
    assert (bundle.manifest.model, bundle.manifest.pretrained) == ("tiny-registered", weights.name)


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def test_failed_parity_leaves_no_bundle(
    tiny_model: str, prompts: ClassPrompts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedmedclip.export.parity.FP32_MAX_ABS_ERROR", 0.0)
    with pytest.raises(ParityError, match="the export was stopped"):
        export_bundle(tiny_model, None, prompts, tmp_path / "bundle", "fp32")
    assert leftovers(tmp_path) == []


def test_interrupted_export_leaves_no_bundle(tiny_model: str, prompts: ClassPrompts, tmp_path: Path) -> None:
    def interrupt(step: str) -> None:
        if step == "comparing with open_clip":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_bundle(tiny_model, None, prompts, tmp_path / "bundle", report=interrupt)
    assert leftovers(tmp_path) == []


def test_full_disk_is_one_clear_line_and_leaves_no_bundle(
    tiny_model: str, prompts: ClassPrompts, tmp_path: Path
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(InvalidInputError, match=r"cannot be written: .*too large") as caught:
            export_bundle(tiny_model, None, prompts, tmp_path / "bundle")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(caught.value)
    assert leftovers(tmp_path) == []


@pytest.mark.slow
def test_existing_bundle_is_replaced_only_by_force(
    tiny_model: str, prompts: ClassPrompts, tmp_path: Path
) -> None:
    first = export_bundle(tiny_model, None, prompts, tmp_path / "bundle")
    fewer = ClassPrompts(prompts.templates, {name: prompts.classes[name] for name in ("other", "glioma")})
    with pytest.raises(InvalidInputError, match="--force"):
        export_bundle(tiny_model, None, fewer, tmp_path / "bundle")
    assert open_bundle(tmp_path / "bundle").digest == first.digest
    second = export_bundle(tiny_model, None, fewer, tmp_path / "bundle", force=True)
    assert open_bundle(tmp_path / "bundle").digest == second.digest != first.digest
    assert leftovers(tmp_path) == ["bundle"]


def test_parity_can_be_measured_on_own_images(tiny_model: str, prompts: ClassPrompts, tmp_path: Path) -> None:
    folder = tmp_path / "images" / "inner"
    folder.mkdir(parents=True)
    for index, image in enumerate(images()[:3]):
        image.save(folder / f"{index}.png")
    (folder / "broken.png").write_bytes(b"\x89PNG no")
    bundle = export_bundle(tiny_model, None, prompts, tmp_path / "bundle", images=tmp_path / "images")
    assert bundle.manifest.parity.images == 3
    with pytest.raises(InvalidInputError, match="no readable image"):
        export_bundle(tiny_model, None, prompts, tmp_path / "other", images=tmp_path / "bundle")


def test_damaged_weights_are_refused(make_model: Any, prompts: ClassPrompts, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    model = make_model()
    weights = Path(model.removeprefix("local-dir:")) / "open_clip_model.safetensors"
    state = load_file(weights)
    save_file({**state, "token_embedding.weight": state["token_embedding.weight"] * float("nan")}, weights)
    with pytest.raises(InvalidInputError, match=r"are damaged: NaN .* in token_embedding\.weight"):
        export_bundle(model, None, prompts, tmp_path / "bundle")
    save_file({**state, "visual.proj": state["visual.proj"] * float("nan")}, weights)
    with pytest.raises(InvalidInputError, match=r"are damaged: NaN .* in visual\.proj"):
        export_bundle(model, None, prompts, tmp_path / "bundle")
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(InvalidInputError, match="cannot be loaded"):
        load_model(model, None)
    weights.unlink()
    with pytest.raises(InvalidInputError, match="no file with weights"):
        load_model(model, None)
    assert leftovers(tmp_path) == []
