"""What is wrong with a checkpoint is said of the checkpoint: which tensors, by name."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from fedmedclip.export.bundle import export_bundle
from fedmedclip.export.model import load_model
from fedmedclip.protocol.bundle.bundle import ClassPrompts
from fedmedclip.protocol.errors import InvalidInputError

Weights = dict[str, torch.Tensor]
DEEP = "visual.transformer.resblocks.0.mlp.c_fc.weight"


def changed(tiny_model: str, folder: Path, change: Callable[[Weights], object]) -> str:
    """Return the model's name after `change` of its weights."""
    shutil.copytree(tiny_model.removeprefix("local-dir:"), folder)
    file = folder / "open_clip_model.safetensors"
    weights = load_file(file)
    change(weights)
    save_file(weights, file)
    return f"local-dir:{folder}"


def refusal(model: str) -> str:
    with pytest.raises(InvalidInputError) as refused:
        load_model(model, None)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def reshape(weights: Weights) -> None:
    weights["text_projection"] = torch.zeros(3, 5)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda weights: weights.pop(DEEP), f"it lacks {DEEP}"),
        (
            lambda weights: weights.update({"visual.extra.tensor": torch.zeros(1)}),
            "it has, and the model has not, visual.extra.tensor",
        ),
        (
            lambda weights: weights.update({f"extra.{i}": torch.zeros(1) for i in range(9)}),
            "extra.0, extra.1, extra.2, extra.3 and 5 more",
        ),
        (reshape, "other shapes than the model: text_projection ([3, 5], the model's [16, 24])"),
        (
            lambda weights: weights.update({"a\x1b[2J" + "n" * 500: torch.zeros(1)}),
            r"has not, a\x1b[2Jnnn",
        ),
    ],
)
def test_a_misfit_names_the_tensors(
    tiny_model: str, tmp_path: Path, change: Callable[[Weights], object], words: str
) -> None:
    message = refusal(changed(tiny_model, tmp_path / "model", change))
    assert words in message
    assert "not of this model" in message
    assert len(message) < 500


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", [DEEP, "token_embedding.weight", "logit_scale"])
def test_weights_that_are_no_numbers_are_the_weights_fault(
    tiny_model: str, tmp_path: Path, name: str, value: float
) -> None:
    message = refusal(
        changed(tiny_model, tmp_path / "model", lambda weights: weights[name].view(-1)[-1:].fill_(value))
    )
    assert f"NaN or infinite values in {name}" in message
    assert "ONNX" not in message


@pytest.mark.parametrize("factor", [0.0, 1e30])
def test_weights_that_lead_to_no_embedding_are_not_blamed_on_onnx(
    tiny_model: str, prompts: ClassPrompts, tmp_path: Path, factor: float
) -> None:
    model = changed(tiny_model, tmp_path / "model", lambda weights: weights["visual.proj"].mul_(factor))
    if factor:
        model = changed(
            model, tmp_path / "larger", lambda weights: weights["visual.ln_post.weight"].fill_(1e30)
        )
    with pytest.raises(InvalidInputError, match=r"the image tower of .* its weights are damaged"):
        export_bundle(model, None, prompts, tmp_path / "bundle", "fp32")
    assert not (tmp_path / "bundle").exists()
