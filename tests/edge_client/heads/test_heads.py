import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedmedclip.edge_client.heads.ensemble import ENTROPY, EnsembleRule, combine, fit_calibrated, softmax
from fedmedclip.edge_client.heads.heads import (
    initial_private_head,
    predict_probabilities,
    private_head_specification,
)
from fedmedclip.edge_client.learning.layers import TorchLayers
from fedmedclip.edge_client.learning.methods.fedmedclip import METHOD
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.heads.head import head_digest
from tests.edge_client.heads.heads_examples import CLASSES, SCALE, SIZE, example_data, example_heads
from tests.edge_client.learning import reference_fedmedclip as reference
from tests.edge_client.learning.tensors import tensors_of

LOGITS = hnp.arrays(np.float32, (5, 3), elements=st.floats(-1000, 1000, width=32))


@pytest.mark.parametrize("seed", range(4))
def test_predictions_are_the_formulas(seed):
    shared, private = example_heads(seed)
    embeddings, _, classes = example_data(30, seed)
    found = predict_probabilities("fedmedclip", shared, private, embeddings, classes, SCALE)
    fam, mlp, ensemble, alpha = reference.predict(
        shared, private, embeddings.astype(np.float64), classes.astype(np.float64), SCALE
    )
    np.testing.assert_allclose(found.shared, fam, atol=1e-5)
    np.testing.assert_allclose(found.private, mlp, atol=1e-5)
    np.testing.assert_allclose(found.ensemble, ensemble, atol=1e-5)
    np.testing.assert_allclose(found.ensemble_weight, alpha, atol=1e-5)


@pytest.mark.parametrize("all_dropped", [False, True])
def test_numpy_equals_torch(all_dropped):
    size = 64
    shared, private = example_heads(1, size)
    if all_dropped:
        shared["first.threshold"][:] = 9.0
        private["linear2.threshold"][:] = 9.0
    embeddings, _, classes = example_data(40, 1, size)
    layers = TorchLayers(training=False)
    fam, mlp = tensors_of(shared, torch.float32), tensors_of(private, torch.float32)
    rows = torch.from_numpy(embeddings), torch.from_numpy(classes)
    with torch.no_grad():
        adapted, logits = METHOD.shared_pass(layers, fam, *rows, SCALE)
        from_shared = logits.softmax(1)
        from_private = METHOD.private_pass(layers, mlp, adapted).softmax(1)
    found = predict_probabilities("fedmedclip", shared, private, embeddings, classes, SCALE)
    np.testing.assert_allclose(found.shared, from_shared.numpy(), atol=1e-5)
    np.testing.assert_allclose(found.private, from_private.numpy(), atol=1e-5)


def test_without_private_head_the_shared_one_decides():
    shared, _ = example_heads()
    embeddings, _, classes = example_data(5)
    found = predict_probabilities("fedmedclip", shared, None, embeddings, classes, SCALE)
    assert found.private is None
    assert np.array_equal(found.ensemble, found.shared)
    assert not found.ensemble_weight.any()


def test_predictions_do_not_depend_on_the_company():
    shared, private = example_heads()
    embeddings, _, classes = example_data(20)
    together = predict_probabilities("fedmedclip", shared, private, embeddings, classes, SCALE)
    alone = predict_probabilities("fedmedclip", shared, private, embeddings[7:8], classes, SCALE)
    np.testing.assert_allclose(together.ensemble[7:8], alone.ensemble, atol=1e-6)


def test_inputs_are_left_alone():
    shared, private = example_heads()
    embeddings, _, classes = example_data(20)
    before = embeddings.copy(), head_digest(shared), head_digest(private)
    found = predict_probabilities("fedmedclip", shared, private, embeddings, classes, SCALE)
    assert np.array_equal(embeddings, before[0])
    assert (head_digest(shared), head_digest(private)) == before[1:]
    assert found.ensemble.dtype == found.ensemble_weight.dtype == found.zero_shot.dtype == np.float32


def test_no_images_give_no_rows():
    shared, private = example_heads()
    embeddings, _, classes = example_data(4)
    found = predict_probabilities("fedmedclip", shared, private, embeddings[:0], classes, SCALE)
    assert found.ensemble.shape == (0, CLASSES)


@settings(max_examples=200)
@given(LOGITS, LOGITS, st.floats(0, 1), st.sampled_from(["entropy", "calibrated"]))
def test_any_logits_give_probabilities_and_a_weight(shared, private, weight, kind):
    probabilities, weights = combine(EnsembleRule(kind, weight), shared, private)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)
    assert ((probabilities >= 0) & (probabilities <= 1)).all()
    assert ((weights >= 0) & (weights <= 1)).all()
    low = np.minimum(softmax(shared), softmax(private))
    assert (probabilities >= low - 1e-6).all()


@given(LOGITS)
def test_equal_heads_share_the_weight(logits):
    probabilities, weights = combine(ENTROPY, logits, logits)
    np.testing.assert_allclose(weights, 0.5)
    np.testing.assert_allclose(probabilities, softmax(logits), atol=1e-6)


def test_the_surer_head_has_the_greater_weight():
    sure, unsure = np.array([[9.0, 0.0]], np.float32), np.array([[0.2, 0.0]], np.float32)
    assert combine(ENTROPY, unsure, sure)[1] > 0.9
    assert combine(ENTROPY, sure, unsure)[1] < 0.1


def test_calibrated_weight_goes_to_the_head_that_is_right():
    labels = np.array([0, 1, 2, 0])
    right = softmax(5 * np.eye(3, dtype=np.float32)[labels])
    wrong = softmax(5 * np.eye(3, dtype=np.float32)[(labels + 1) % 3])
    assert fit_calibrated(wrong, right, labels) == EnsembleRule("calibrated", 1.0)
    assert fit_calibrated(right, wrong, labels) == EnsembleRule("calibrated", 0.0)
    with pytest.raises(InvalidInputError, match="validation images"):
        fit_calibrated(right[:0], wrong[:0], labels[:0])


@pytest.mark.parametrize("weight", [-0.1, 1.1, float("nan")])
def test_rule_with_an_impossible_weight_is_refused(weight):
    with pytest.raises(InvalidInputError, match="must be from 0 to 1"):
        EnsembleRule("calibrated", weight)


def test_private_heads_start_differently_at_each_site_and_equally_after_a_restart():
    digests = {
        site: head_digest(initial_private_head("fedmedclip", SIZE, CLASSES, 7, site)) for site in ("a", "b")
    }
    assert digests["a"] != digests["b"]
    assert digests["a"] == head_digest(initial_private_head("fedmedclip", SIZE, CLASSES, 7, "a"))


def test_private_head_includes_batch_norm_statistics():
    names = [tensor.name for tensor in private_head_specification("fedmedclip", SIZE, CLASSES).tensors]
    assert {"norm1.running_mean", "norm3.running_var", "classifier.threshold"} <= set(names)


def test_unknown_method_is_refused():
    with pytest.raises(InvalidInputError, match=r"known: .*fedmedclip"):
        private_head_specification("fedmagic", SIZE, CLASSES)


def test_inference_training_settings_and_metrics_need_no_torch():
    rooms = ["heads.ensemble", "heads.heads", "heads.heads_file", "heads.metrics", "learning.methods"]
    modules = [*(f"edge_client.{room}" for room in rooms), "edge_client.learning.settings"]
    imports = "; ".join(f"import fedmedclip.{module}" for module in [*modules, "protocol.heads.shared_heads"])
    program = f"import sys; {imports}; print('torch' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"
