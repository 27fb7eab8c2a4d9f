"""The image tower as an ONNX graph: uint8 images in, embeddings out, of unit length unless asked otherwise.

Normalisation and layout are part of the graph, so that the edge hands over the pixels that
`protocol.bundle.preprocessing.fit` gives and nothing else.
"""

from typing import TYPE_CHECKING, Any

from fedmedclip.export.model import LoadedModel
from fedmedclip.export.torch_to_onnx import inference_form, module_to_onnx
from fedmedclip.protocol.bundle.bundle import Preprocessing

if TYPE_CHECKING:
    import torch

INPUT_NAME = "image"
OUTPUT_NAME = "embedding"


def encoder_to_onnx(loaded: LoadedModel, *, own_length: bool = False) -> Any:
    """Return the image encoder as an `onnx.ModelProto`, the same for the same weights.

    Input `image`: uint8 (batch, height, width, 3), RGB. Output `embedding`: float32 (batch, D), rows of unit
    length, or with `own_length` of the length that the tower gives them. The batch is free. Raises
    InvalidInputError when the tower has an operation that ONNX lacks.
    """
    import torch

    height, width = loaded.preprocessing.height, loaded.preprocessing.width
    example = torch.zeros(2, height, width, 3, dtype=torch.uint8)
    tower = f"the image tower of {loaded.source.shown_name}"
    return module_to_onnx(_tower(loaded, own_length), example, INPUT_NAME, OUTPUT_NAME, tower)


def _tower(loaded: LoadedModel, own_length: bool) -> "torch.nn.Module":
    """Return the image tower between uint8 pixels and embedding, in its form for inference."""
    import torch

    class ImageEncoder(torch.nn.Module):
        """uint8 (batch, height, width, 3) -> float32 (batch, D)."""

        scale: torch.Tensor
        shift: torch.Tensor

        def __init__(self, visual: torch.nn.Module, preprocessing: Preprocessing) -> None:
            super().__init__()
            mean = torch.tensor(preprocessing.mean).reshape(1, 3, 1, 1)
            deviation = torch.tensor(preprocessing.standard_deviation).reshape(1, 3, 1, 1)
            self.visual = visual
            self.register_buffer("scale", 1 / (255 * deviation))
            self.register_buffer("shift", -mean / deviation)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            pixels = image.permute(0, 3, 1, 2).to(torch.float32)
            features = self.visual(pixels * self.scale + self.shift)
            # CoCa's tower also gives the tokens for its text decoder.
            embedding = features[0] if isinstance(features, tuple) else features
            return embedding if own_length else torch.nn.functional.normalize(embedding, dim=-1)

    return ImageEncoder(inference_form(loaded.network.visual), loaded.preprocessing).eval()
