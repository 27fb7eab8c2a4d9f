import numpy as np
import pytest
import torch

from fedmedclip.edge_client.learning.masked_linear import LongTailedStep, masked_linear


class Layer:
    """Weight (outputs, inputs), thresholds, and a bias of 3, as training has them."""

    def __init__(self, weight, threshold, training=True):
        self.weight = torch.tensor(weight, requires_grad=True)
        self.bias = torch.full((len(weight),), 3.0, requires_grad=True)
        self.threshold = torch.tensor(threshold, requires_grad=True)
        self.training = training

    def __call__(self, x):
        return masked_linear(x, self.weight, self.bias, self.threshold, self.training)


def test_row_is_kept_when_its_mean_exceeds_its_threshold_by_more_than_a_hundredth():
    layer = Layer([[0.5, -0.5], [0.5, -0.5], [0.5, -0.5]], [0.0, 0.495, 0.48])
    assert layer(torch.tensor([[1.0, 0.0]])).tolist() == [[3.5, 3.0, 3.5]]


def test_surrogate_gradient_is_the_long_tailed_estimator():
    x = torch.tensor([-1.5, -1.0, -0.7, -0.4, -0.1, 0.0, 0.1, 0.39, 0.41, 1.0, 1.01], requires_grad=True)
    LongTailedStep.apply(x).sum().backward()
    expected = [0, 0.4, 0.4, 0.4, 1.6, 2.0, 1.6, 2 - 4 * 0.39, 0.4, 0.4, 0]
    np.testing.assert_allclose(x.grad.numpy(), expected, atol=1e-6)


def test_step_is_one_above_zero_only():
    assert LongTailedStep.apply(torch.tensor([-1.0, 0.0, 1e-9])).tolist() == [0.0, 0.0, 1.0]


def test_threshold_and_weight_gradients_follow_the_formula():
    generator = np.random.default_rng(3)
    weight = generator.normal(size=(5, 7)).astype(np.float32) * 0.3
    threshold = np.array([0.0, 0.1, 0.2, 0.6, -0.9], dtype=np.float32)
    x = generator.normal(size=(4, 7)).astype(np.float32)
    upstream = generator.normal(size=(4, 5)).astype(np.float32)
    layer = Layer(weight.tolist(), threshold.tolist())
    layer(torch.from_numpy(x)).backward(torch.from_numpy(upstream))

    distance = np.abs(weight).mean(1) - 0.01 - threshold
    mask = (distance > 0).astype(float)
    size = np.abs(distance)
    slope = np.where(size <= 0.4, 2 - 4 * size, np.where(size <= 1, 0.4, 0.0))
    to_mask = (upstream * (x @ weight.T)).sum(0)
    np.testing.assert_allclose(layer.threshold.grad.numpy(), -to_mask * slope, rtol=1e-4, atol=1e-5)
    direct = mask[:, None] * (upstream.T @ x)
    through_mask = (to_mask * slope)[:, None] * np.sign(weight) / weight.shape[1]
    np.testing.assert_allclose(layer.weight.grad.numpy(), direct + through_mask, rtol=1e-4, atol=1e-5)


def test_gradient_is_alive_at_usual_weight_scales():
    layer = Layer(np.random.default_rng(0).uniform(-1 / 16, 1 / 16, (16, 256)).tolist(), [0.0] * 16)
    layer(torch.ones(2, 256) / 16).square().sum().backward()
    assert (layer.threshold.grad != 0).all()


def test_thresholds_are_reset_in_training_when_fewer_than_one_row_in_a_hundred_is_kept():
    layer = Layer([[0.5, 0.5]] * 4, [9.0] * 4)
    assert layer(torch.tensor([[1.0, 1.0]])).tolist() == [[4.0] * 4]
    assert layer.threshold.tolist() == [0.0] * 4


def test_thresholds_stay_when_one_row_in_a_hundred_is_kept():
    layer = Layer([[0.5]] * 100, [0.0] + [9.0] * 99)
    assert layer(torch.tensor([[1.0]])).tolist() == [[3.5] + [3.0] * 99]
    assert layer.threshold.tolist() == [0.0] + [9.0] * 99


def test_inference_acts_as_if_reset_but_changes_nothing():
    layer = Layer([[0.5, 0.5]] * 4, [9.0] * 4, training=False)
    assert layer(torch.tensor([[1.0, 1.0]])).tolist() == [[4.0] * 4]
    assert layer.threshold.tolist() == [9.0] * 4


@pytest.mark.parametrize("training", [True, False])
def test_weights_too_small_to_keep_leave_the_bias(training):
    layer = Layer([[0.001, 0.001]] * 4, [0.0] * 4, training)
    assert layer(torch.tensor([[1.0, 1.0]])).tolist() == [[3.0] * 4]
