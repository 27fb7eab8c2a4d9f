"""The text tower as one ONNX file: tokens in, unit-length embeddings out.

open_clip's own `encode_text` is traced, so pooling, class token, masks and projection are the model's.
"""

import copy
from typing import TYPE_CHECKING, Any

from fedmedclip.export.model import LoadedModel
from fedmedclip.export.torch_to_onnx import inference_form, module_to_onnx

if TYPE_CHECKING:
    import torch

TEXT_INPUT_NAME = "tokens"
TEXT_OUTPUT_NAME = "text_embedding"


def text_encoder_to_onnx(loaded: LoadedModel) -> Any:
    """Return the text tower as an `onnx.ModelProto`, the same for the same weights.

    Input `tokens`: int64 (batch, context length), as the model's tokenizer gives them. Output
    `text_embedding`: float32 (batch, D), rows of unit length. The batch is free. Raises InvalidInputError
    when the tower is too large for one ONNX file, or has an operation that ONNX lacks.
    """
    import torch

    # Tokens that differ, so that no position looks like a constant; small, so that any vocabulary has them.
    example = torch.arange(2 * context_length(loaded)).reshape(2, -1) % 7
    tower = f"the text tower of {loaded.source.shown_name}"
    return module_to_onnx(_tower(loaded), example, TEXT_INPUT_NAME, TEXT_OUTPUT_NAME, tower)


def context_length(loaded: LoadedModel) -> int:
    """Return how many tokens a text becomes.

    The tokenizer knows: a Hugging Face tower could take more, and a CoCa's own figure is its decoder's.
    """
    network = loaded.network
    of_tower = getattr(network, "text", network).context_length
    return int(getattr(loaded.tokenizer, "context_length", None) or of_tower)


def _tower(loaded: LoadedModel) -> "torch.nn.Module":
    """Return the text side of the model between tokens and unit embedding, in its form for inference."""
    import torch

    class TextEncoder(torch.nn.Module):
        """int64 (batch, context length) -> float32 (batch, D) of unit length."""

        def __init__(self, network: Any) -> None:
            super().__init__()
            self.network = network

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            embedding: torch.Tensor = self.network.encode_text(tokens, normalize=True)
            return embedding

    network = copy.copy(loaded.network)
    # A shallow copy without the other towers: they are no part of the graph and may be gigabytes.
    network._modules = {
        name: module
        for name, module in loaded.network._modules.items()
        if name not in ("visual", "text_decoder")
    }
    return TextEncoder(inference_form(network)).eval()
