"""The image tower as one ONNX file: uint8 images in, unit-length embeddings out.

Normalisation and layout are part of the graph, so that the edge hands over the pixels that
`protocol.preprocessing.fit` gives and nothing else. PyTorch's TorchScript exporter is used: the newer one
writes the weights into a second file and fixes the batch size more easily than it keeps it free.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from export.model import LoadedModel
from export.quiet import quiet
from protocol.bundle import Preprocessing
from protocol.errors import InvalidInputError

if TYPE_CHECKING:
    import torch

INPUT_NAME = "image"
OUTPUT_NAME = "embedding"
# Has everything a CLIP needs, and every ONNX Runtime since 1.13 reads it.
OPSET = 17
# A protocol buffer, and so an ONNX file that holds its own weights, ends at 2 GiB; the graph takes a little.
MAX_WEIGHT_BYTES = 2**31 - 2**24


def encoder_to_onnx(loaded: LoadedModel) -> Any:
    """Return the image encoder as an `onnx.ModelProto`, the same for the same weights.

    Input `image`: uint8 (batch, height, width, 3), RGB. Output `embedding`: float32 (batch, D), rows of unit
    length. The batch is free. Raises InvalidInputError when the tower is too large for one ONNX file, or has
    an operation that ONNX lacks.
    """
    import onnx
    import torch

    weight_bytes = 4 * sum(parameter.numel() for parameter in loaded.network.visual.parameters())
    if weight_bytes > MAX_WEIGHT_BYTES:
        raise InvalidInputError(
            f"the image tower of {loaded.source.shown_name} has {weight_bytes / 2**30:.1f} GiB of weights, "
            "an ONNX file takes 2 GiB; choose a smaller model"
        )
    encoder = _tower(loaded)
    # Two images: with one, an exporter may take the batch size for a constant.
    height, width = loaded.preprocessing.height, loaded.preprocessing.width
    example = torch.zeros(2, height, width, 3, dtype=torch.uint8)
    written = io.BytesIO()
    with quiet(), torch.no_grad(), _exportable_attention():
        embedding_size = encoder(example).shape[1]
        try:
            torch.onnx.export(
                encoder,
                (example,),
                written,  # type: ignore[arg-type]
                dynamo=False,
                opset_version=OPSET,
                input_names=[INPUT_NAME],
                output_names=[OUTPUT_NAME],
                dynamic_axes={INPUT_NAME: {0: "batch"}, OUTPUT_NAME: {0: "batch"}},
            )
        except (RuntimeError, torch.onnx.errors.OnnxExporterError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise InvalidInputError(
                f"the image tower of {loaded.source.shown_name} cannot be written as ONNX: {reason[:300]}"
            ) from error
    model = onnx.load_model_from_string(written.getvalue())
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = embedding_size
    onnx.checker.check_model(model)
    return model


def _tower(loaded: LoadedModel) -> "torch.nn.Module":
    """Return the image tower between uint8 pixels and unit embedding, in its form for inference."""
    import torch

    class ImageEncoder(torch.nn.Module):
        """uint8 (batch, height, width, 3) -> float32 (batch, D) of unit length."""

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
            return torch.nn.functional.normalize(embedding, dim=-1)

    visual = loaded.network.visual
    if any(hasattr(module, "reparameterize") for module in visual.modules()):
        # MobileCLIP and its kin train with parallel branches, which merge into one for inference.
        from timm.utils.model import reparameterize_model

        visual = reparameterize_model(visual)
    return ImageEncoder(visual, loaded.preprocessing).eval()


@contextmanager
def _exportable_attention() -> Iterator[None]:
    """Switch off PyTorch's fused attention for inference, which has no counterpart in ONNX."""
    import torch

    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)
