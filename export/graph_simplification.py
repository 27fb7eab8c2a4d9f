"""A traced graph without what is known before any image is seen: sizes, and arithmetic on them.

The TorchScript exporter asks for the size of every tensor while the graph runs, though only the batch is
free. Without these nodes, ONNX Runtime opened a ViT-B/32 in two thirds of the time, when attention still was
PyTorch's own (`attention.py`).
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

# A size that a pass makes constant may make others constant; two passes settle a vision transformer.
MAX_PASSES = 8


def simplify(model: Any) -> Any:
    """Return an `onnx.ModelProto` that computes the same with fewer nodes, all of them of ONNX itself.

    For graphs whose weights are inputs still. The same graph gives the same bytes. Raises ONNX Runtime's own
    exception when it cannot run the graph.
    """
    simplified = _folded(model)
    for _ in range(MAX_PASSES):
        if not _make_known_sizes_constant(simplified):
            break
        simplified = _folded(simplified)
    del simplified.opset_import[:]
    simplified.opset_import.extend(model.opset_import)
    simplified.producer_name, simplified.producer_version = model.producer_name, model.producer_version
    return simplified


def _folded(model: Any) -> Any:
    """Return the model as ONNX Runtime's basic optimisation leaves it, which knows no processor yet."""
    import onnx
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(path)
        errors_only = 3
        options.log_severity_level = errors_only
        onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return onnx.load(path)


def _make_known_sizes_constant(model: Any) -> int:
    """Replace each Gather from a Shape that takes sizes known in advance, in place; return how many."""
    from onnx import helper, numpy_helper, shape_inference

    sizes = _sizes(shape_inference.infer_shapes(model, data_prop=True).graph)
    shapes = {
        node.output[0]: sizes.get(node.input[0]) for node in model.graph.node if node.op_type == "Shape"
    }
    indices = _constants(model.graph)
    replaced = 0
    for node in model.graph.node:
        if node.op_type != "Gather" or node.input[1] not in indices:
            continue
        taken = _taken(shapes.get(node.input[0]), indices[node.input[1]])
        if taken is None:
            continue
        constant = helper.make_node("Constant", [], [node.output[0]], value=numpy_helper.from_array(taken))
        node.CopyFrom(constant)
        replaced += 1
    return replaced


def _constants(graph: Any) -> dict[str, npt.NDArray[Any]]:
    """Return the graph's constants by name, be they initializers or nodes."""
    from onnx import numpy_helper

    tensors = {node.output[0]: node.attribute[0].t for node in graph.node if node.op_type == "Constant"}
    tensors |= {initializer.name: initializer for initializer in graph.initializer}
    return {name: numpy_helper.to_array(tensor) for name, tensor in tensors.items()}


def _sizes(graph: Any) -> dict[str, list[int | None]]:
    """Return the dimensions of each tensor whose rank is known, by name; None for one that is free."""
    return {
        value.name: [
            size.dim_value if size.dim_value > 0 else None for size in value.type.tensor_type.shape.dim
        ]
        for value in (*graph.value_info, *graph.input, *graph.output)
        if value.type.tensor_type.HasField("shape")
    }


def _taken(sizes: list[int | None] | None, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.int64] | None:
    """Return the sizes at these indices, in the indices' shape; None when one of them is not known."""
    if sizes is None:
        return None
    values = [sizes[index] for index in indices.ravel().tolist()]
    if None in values:
        return None
    return np.array(values, dtype=np.int64).reshape(indices.shape)
