"""A tower of a CLIP as an ONNX graph with a free batch.

PyTorch's TorchScript exporter is used: the newer one writes the weights into a second file and fixes the
batch size more easily than it keeps it free.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from fedmedclip.export.attention import attention_written_out
from fedmedclip.export.graph_simplification import simplify
from fedmedclip.export.onnx_weights import attach_weights
from fedmedclip.export.quiet import quiet
from fedmedclip.protocol.errors import InvalidInputError

if TYPE_CHECKING:
    import torch

# Has everything a CLIP needs, and every ONNX Runtime since 1.13 reads it.
OPSET = 17


def module_to_onnx(
    module: "torch.nn.Module", example: "torch.Tensor", input_name: str, output_name: str, tower: str
) -> Any:
    """Return a module as an `onnx.ModelProto`, the same for the same weights.

    The module takes one tensor and gives one, (batch, D). `example` is an input of two rows or more: with
    one, an exporter may take the batch size for a constant. `tower` says in errors what this is, as in "the
    text tower of ViT-B-32".

    The weights may exceed the 2 GiB that one file holds: write it with `export.onnx_weights.write_model`.
    Raises InvalidInputError when an operation is not in ONNX.
    """
    import onnx
    import torch

    sizes: list[int] = []
    hook = module.register_forward_hook(lambda _, inputs, embedding: sizes.append(int(embedding.shape[1])))
    written = io.BytesIO()
    with quiet(), torch.no_grad(), _exportable_attention(), attention_written_out(module):
        try:
            torch.onnx.export(
                module,
                (example,),
                written,  # type: ignore[arg-type]
                dynamo=False,
                opset_version=OPSET,
                # The weights are attached afterwards by the names they have here; folding would rename them.
                export_params=False,
                do_constant_folding=False,
                input_names=[input_name],
                output_names=[output_name],
                dynamic_axes={input_name: {0: "batch"}, output_name: {0: "batch"}},
            )
        except (RuntimeError, torch.onnx.errors.OnnxExporterError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise InvalidInputError(f"{tower} cannot be written as ONNX: {reason[:300]}") from error
    hook.remove()
    model = onnx.load_model_from_string(written.getvalue())
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = sizes[0]
    # Before the weights come, which the checker would copy.
    onnx.checker.check_model(model)
    model = simplify(model)
    attach_weights(model, module.state_dict(keep_vars=True))
    return model


def inference_form(tower: "torch.nn.Module") -> "torch.nn.Module":
    """Return a tower whose parallel branches, which only training needs, are merged; most have none."""
    if not any(hasattr(module, "reparameterize") for module in tower.modules()):
        return tower
    from timm.utils.model import reparameterize_model

    merged: torch.nn.Module = reparameterize_model(tower)
    return merged


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
