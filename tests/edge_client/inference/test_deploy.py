"""One ONNX file gives what `fedmedclip predict` gives, with plain ONNX Runtime, for every batch size."""

import hashlib
import json
import re
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper
from PIL import Image

from fedmedclip.edge_client.features.encoder import Encoder
from fedmedclip.edge_client.heads.classification import predict, zero_shot
from fedmedclip.edge_client.heads.discriminant import choice_by, pooled
from fedmedclip.edge_client.heads.ensemble import EnsembleRule
from fedmedclip.edge_client.heads.heads import initial_private_head
from fedmedclip.edge_client.heads.heads_file import Heads, save_heads
from fedmedclip.edge_client.heads.layers import unit_rows
from fedmedclip.edge_client.heads.scanner_offset import NOT_LABELLED
from fedmedclip.edge_client.images.opening import read_image
from fedmedclip.edge_client.inference.deployment.deploy import deploy
from fedmedclip.edge_client.inference.deployment.graph import deployed_model
from fedmedclip.edge_client.inference.deployment.recorder import Recording, UnsupportedError
from fedmedclip.edge_client.learning.methods.one_message import shared_statistics
from fedmedclip.edge_client.learning.methods.whitened_memory import fit as fit_memory
from fedmedclip.edge_client.learning.own_images import OwnImages
from fedmedclip.edge_client.learning.version_head import adapted
from fedmedclip.protocol.bundle.bundle import open_bundle
from fedmedclip.protocol.bundle.preprocessing import fit
from fedmedclip.protocol.errors import BundleError, InvalidInputError
from fedmedclip.protocol.heads.heads_file import Judgement
from fedmedclip.protocol.heads.shared_heads import initial_shared_head, known_methods
from tests import ROOT
from tests.edge_client.heads.heads_examples import example_heads

CALIBRATED = EnsembleRule("calibrated", 1.0)
DOCUMENTATION = ROOT / "docs" / "how-to" / "deploy.md"


def heads_for(bundle, rule=EnsembleRule(), private=True):  # noqa: B008
    shared, own = example_heads(0, bundle.manifest.embedding_size, len(bundle.manifest.class_names))
    return Heads("fedmedclip", shared, own if private else None, "trial", "site-a", 3, rule)


def deployed(bundle, heads, path):
    if heads is not None:
        save_heads(path.with_suffix(".safetensors"), heads, bundle)
    return deploy(bundle.folder, heads and path.with_suffix(".safetensors"), path)


def pixels(bundle, count):
    preprocessing = bundle.manifest.preprocessing
    shape = (count, preprocessing.height, preprocessing.width, 3)
    return np.random.default_rng(count).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("rule", [EnsembleRule(), EnsembleRule("calibrated", 0.3)])
@pytest.mark.parametrize("private", [True, False])
def test_the_file_gives_what_predict_gives(tmp_path, tiny_bundle, rule, private):
    heads = heads_for(tiny_bundle, rule, private)
    written = deployed(tiny_bundle, heads, tmp_path / "model.onnx")
    assert written.largest_difference <= 1e-5
    session = onnxruntime.InferenceSession(written.path)
    for count in (1, 5):
        images = pixels(tiny_bundle, count)
        with Encoder(tiny_bundle) as encoder:
            embeddings = encoder.encode(images)
        expected = predict(heads, tiny_bundle, embeddings)
        found = dict(
            zip(
                [out.name for out in session.get_outputs()], session.run(None, {"image": images}), strict=True
            )
        )
        wanted = {
            "probabilities": expected.ensemble,
            "ensemble_weight": expected.ensemble_weight,
            "embedding": embeddings,
            "zero_shot_probabilities": expected.zero_shot,
            "shared_probabilities": expected.shared,
        }
        if private:
            wanted["private_probabilities"] = expected.private
        assert found.keys() == wanted.keys()
        for name, value in wanted.items():
            np.testing.assert_allclose(found[name], value, atol=1e-5, rtol=0, err_msg=name)


def test_without_heads_it_is_zero_shot(tmp_path, tiny_bundle):
    deployed(tiny_bundle, None, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    images = pixels(tiny_bundle, 3)
    with Encoder(tiny_bundle) as encoder:
        expected = zero_shot(tiny_bundle, encoder.encode(images))
    found, weight = session.run(["probabilities", "ensemble_weight"], {"image": images})
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert not weight.any()


def test_where_zero_shot_was_better_the_file_is_zero_shot_and_says_so(tmp_path, tiny_bundle):
    heads = replace(heads_for(tiny_bundle), judgement=Judgement(40, 0.5, 0.75))
    written = deployed(tiny_bundle, heads, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(written.path)
    images = pixels(tiny_bundle, 2)
    probabilities, embedding = session.run(["probabilities", "embedding"], {"image": images})
    np.testing.assert_allclose(probabilities, zero_shot(tiny_bundle, embedding), atol=1e-5)
    described = session.get_modelmeta().custom_metadata_map
    assert json.loads(described["fedmedclip.zero_shot_answers"]) is True


def test_the_file_is_self_contained_and_says_what_it_is(tmp_path, tiny_bundle):
    deployed(tiny_bundle, heads_for(tiny_bundle), tmp_path / "model.onnx")
    model = onnx.load(tmp_path / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".safetensors"] == ["model.onnx"]
    about = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(about["fedmedclip.class_names"]) == tiny_bundle.manifest.class_names
    assert json.loads(about["fedmedclip.preprocessing"])["width"] == tiny_bundle.manifest.preprocessing.width
    assert about["fedmedclip.bundle_sha256"] == tiny_bundle.digest.hex()
    assert about["fedmedclip.site"] == "site-a"


def in_two_files(folder, make_bundle):
    """Write a bundle whose encoder keeps its weights in a second file, as one beyond 2 GiB does."""
    whole = onnx.load_from_string(make_bundle(folder).image_encoder.read_bytes())
    data = "image_encoder.onnx.data"
    onnx.save_model(
        whole, folder / "image_encoder.onnx", save_as_external_data=True, location=data, size_threshold=1024
    )
    manifest = json.loads((folder / "manifest.json").read_bytes())
    for name in ("image_encoder.onnx", data):
        manifest["files"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return open_bundle(folder)


def test_an_encoder_in_two_files_becomes_one(tmp_path, make_bundle):
    bundle = in_two_files(tmp_path / "bundle", make_bundle)
    assert (bundle.folder / "image_encoder.onnx.data").stat().st_size > 1000
    (tmp_path / "out").mkdir()
    deployed(bundle, None, tmp_path / "out" / "model.onnx")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["model.onnx"]


def test_an_encoder_that_one_file_cannot_hold_is_refused(tmp_path, make_bundle, monkeypatch):
    bundle = in_two_files(tmp_path / "bundle", make_bundle)
    monkeypatch.setattr("fedmedclip.edge_client.inference.deployment.deploy.MAX_FILE_BYTES", 2000)
    with pytest.raises(InvalidInputError, match=r"the encoder has .* GB.*--precision int8 or fp16"):
        deployed(bundle, None, tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()


def test_a_file_that_is_no_model_is_refused(tmp_path, make_bundle):
    folder = tmp_path / "bundle"
    make_bundle(folder, encoder=onnx.ModelProto(ir_version=9).SerializeToString() + b"\xff no model")
    with pytest.raises(BundleError, match="cannot be read"):
        deploy(folder, None, tmp_path / "model.onnx")


def test_an_existing_file_is_not_replaced_unasked(tmp_path, tiny_bundle):
    target = tmp_path / "model.onnx"
    target.write_text("mine")
    with pytest.raises(InvalidInputError, match="--force"):
        deployed(tiny_bundle, None, target)
    assert target.read_text() == "mine"


def dynamically_quantised(tiny_encoder_bytes):
    """The tiny encoder with its product in 8 bits, whose scale depends on the whole batch."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = onnx.load_model_from_string(tiny_encoder_bytes)
    return quantize_dynamic, QuantType, model


def test_dynamic_quantisation_does_not_see_the_other_images(tmp_path, tiny_bundle, make_bundle):
    quantize_dynamic, kind, model = dynamically_quantised(tiny_bundle.image_encoder.read_bytes())
    quantize_dynamic(model, tmp_path / "int8.onnx", weight_type=kind.QInt8, op_types_to_quantize=["MatMul"])
    encoder = (tmp_path / "int8.onnx").read_bytes()
    bundle = make_bundle(tmp_path / "bundle", encoder=encoder, precision="int8")
    heads = heads_for(bundle)
    deployed(bundle, heads, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    images = pixels(bundle, 4)
    images[1] //= 8  # a dark image beside bright ones would take their scale
    together = session.run(["probabilities", "embedding"], {"image": images})
    with Encoder(bundle) as opened:
        embeddings = opened.encode(images)
    np.testing.assert_allclose(together[1], embeddings, atol=1e-6)
    np.testing.assert_allclose(together[0], predict(heads, bundle, embeddings).ensemble, atol=1e-5)
    plain = onnxruntime.InferenceSession(bundle.image_encoder).run(None, {"image": images})[0]
    assert np.abs(plain - embeddings).max() > 1e-4  # so the loop is needed


@pytest.mark.parametrize("labelled", [0, 40])
def test_heads_that_are_adapted_to_images_can_be_recorded(tiny_bundle, labelled):
    size, classes = tiny_bundle.manifest.embedding_size, len(tiny_bundle.manifest.class_names)
    generator, labels = np.random.default_rng(1), np.arange(40) % classes
    rows = 3 * generator.normal(size=(classes, size))[labels] + generator.normal(size=(40, size))
    seen = unit_rows(rows.astype(np.float32))
    given = (tiny_bundle.class_embeddings, tiny_bundle.manifest.logit_scale, 0)
    shared = initial_shared_head("one-message", size, 1, classes)
    shared = shared_statistics(shared, OwnImages.of(seen, labels), *given)
    # Labels of other classes than the federation has are there to be corrected by.
    own = np.where(np.arange(40) < labelled, (labels + 1) % classes, NOT_LABELLED)
    private = adapted("one-message", shared, OwnImages.of(seen[::-1], own), *given).private
    assert np.abs(private["corrections" if labelled else "weights"]).any()
    check_recorded(tiny_bundle, Heads("one-message", shared, private, "trial", "", 1, CALIBRATED), 17)


@pytest.mark.parametrize("method", known_methods())
@pytest.mark.parametrize("opset", [17, 18])
def test_the_heads_of_every_method_can_be_recorded(tiny_bundle, method, opset):
    size, classes = tiny_bundle.manifest.embedding_size, len(tiny_bundle.manifest.class_names)
    shared = initial_shared_head(method, size, 1, classes)
    private = initial_private_head(method, size, classes, 1, "site-a")
    if method == "whitened-memory":
        generator, labels = np.random.default_rng(1), np.arange(40) % classes
        rows = 3 * generator.normal(size=(classes, size))[labels] + generator.normal(size=(40, size))
        seen = unit_rows(rows.astype(np.float32))
        shared, private, _ = fit_memory(shared, seen, labels, tiny_bundle.class_embeddings, 10.0, seed=0)
        # What a site alone would begin its next round with: what is tested is not zero-shot.
        assert choice_by(pooled(shared)).discriminant > 0
    check_recorded(tiny_bundle, Heads(method, shared, private or None, "trial", "site-a", 1), opset)


def check_recorded(tiny_bundle, heads, opset):
    """Compare what a recorded graph gives for embeddings with what the heads give."""
    size = tiny_bundle.manifest.embedding_size
    encoder = onnx.load(tiny_bundle.image_encoder)
    encoder.opset_import[0].version = opset
    encoder.graph.ClearField("node")
    encoder.graph.node.append(helper.make_node("Identity", ["given"], ["embedding"]))
    model = deployed_model(encoder, tiny_bundle, heads, {})
    model.graph.input[0].CopyFrom(
        helper.make_tensor_value_info("given", onnx.TensorProto.FLOAT, ["batch", size])
    )
    session = onnxruntime.InferenceSession(model.SerializeToString())
    embeddings = np.random.default_rng(0).normal(size=(6, size)).astype(np.float32)
    found = session.run(["probabilities"], {"given": embeddings})[0]
    np.testing.assert_allclose(found, predict(heads, tiny_bundle, embeddings).ensemble, atol=1e-5)


def test_what_cannot_be_recorded_is_named():
    value = Recording(17).input("x", np.float32, rank=2)
    for code in (lambda: np.sinh(value), lambda: np.sort(value), lambda: value[0]):
        with pytest.raises(UnsupportedError, match="counterpart"):
            code()


def test_recorded_functions_are_numpys():
    def code(x):
        leaky = np.where(x > 0, x, 0.01 * x)
        scaled = np.tanh(leaky) / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
        spread = x.var(axis=1) + np.abs(-x).mean(axis=1) - np.sqrt(np.sum(x * x, axis=1))
        return scaled.astype(np.float64) * spread[:, None] + np.exp(np.minimum(x, 1)) ** 2

    recording = Recording(17)
    recording.output(code(recording.input("x", np.float32, rank=2)), "y")
    graph = helper.make_graph(
        recording.nodes,
        "test",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [None, 3])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.DOUBLE, [None, 3])],
        recording.constants,
    )
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    x = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    found = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})[0]
    np.testing.assert_allclose(found, code(x), rtol=1e-5, atol=1e-6)


def test_the_documentations_lines_classify(tmp_path, make_bundle, make_image, monkeypatch, capsys):
    bundle = make_bundle(tmp_path / "bundle", height=32, width=32)
    heads = heads_for(bundle)
    deployed(bundle, heads, tmp_path / "model.onnx")
    image = make_image(tmp_path / "image.jpg", seed=1)
    (snippet,) = re.findall(r"```python\n(.*?)```", DOCUMENTATION.read_text(), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    found = {}
    exec(snippet, found)
    with Encoder(bundle) as encoder:
        embeddings = encoder.encode(fit(read_image(image), bundle.manifest.preprocessing)[None])
    np.testing.assert_allclose(
        found["probabilities"], predict(heads, bundle, embeddings).ensemble[0], atol=1e-5
    )
    assert all(name in capsys.readouterr().out for name in bundle.manifest.class_names[:1])
    assert Image.open(image).size[0] != Image.open(image).size[1]


def test_an_encoder_with_other_names_is_refused(tmp_path, tiny_bundle, make_bundle):
    model = onnx.load(tiny_bundle.image_encoder)
    model.graph.output[0].name = "features"
    model.graph.node[-1].output[0] = "features"
    bundle = make_bundle(tmp_path / "bundle", encoder=model.SerializeToString())
    with pytest.raises(BundleError, match="features"):
        deploy(open_bundle(bundle.folder).folder, None, tmp_path / "model.onnx")
