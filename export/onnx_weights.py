"""Give a traced graph its weights, and write it to disk whatever its size.

The graph is traced without weights and gets them here, straight from PyTorch's memory. So no weight is copied
through a protocol buffer, which ends at 2 GiB, and an export needs little more memory than the model.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

# A protocol buffer, and so an ONNX file that holds its own weights, ends at 2 GiB; the graph takes a little.
MAX_WEIGHT_BYTES = 2**31 - 2**24
# Weights smaller than this stay in the graph's own file.
SMALLEST_EXTERNAL_BYTES = 1024


def attach_weights(model: Any, weights: "Mapping[str, torch.Tensor]") -> None:
    """Make the inputs of an `onnx.ModelProto` that are named in `weights` its initializers, in place.

    A transposition of a weight is carried out, so that matrix products find theirs ready.
    """
    from onnx import numpy_helper

    graph = model.graph
    inputs = [value.name for value in graph.input if value.name in weights]
    kept = [value for value in graph.input if value.name not in weights]
    arrays = {name: weights[name].detach().numpy() for name in inputs}
    nodes = []
    for node in graph.node:
        if node.op_type == "Identity" and node.input[0] in arrays:
            arrays[node.output[0]] = arrays[node.input[0]]
        elif node.op_type == "Transpose" and node.input[0] in arrays:
            arrays[node.output[0]] = arrays[node.input[0]].transpose(node.attribute[0].ints)
        else:
            nodes.append(node)
    used = {name for node in nodes for name in node.input}
    for field, values in ((graph.input, kept), (graph.node, nodes)):
        copies = [type(value).FromString(value.SerializeToString()) for value in values]
        del field[:]
        field.extend(copies)
    for name, array in arrays.items():
        if name in used:
            graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(array), name))


def weight_bytes(model: Any) -> int:
    """Return how many bytes the initializers of an `onnx.ModelProto` hold."""
    return sum(len(initializer.raw_data) for initializer in model.graph.initializer)


def write_model(model: Any, path: Path) -> list[Path]:
    """Write an `onnx.ModelProto` and return the files: `path`, and `path` + ".data" if it exceeds 2 GiB.

    The same model gives the same bytes. A model that exceeds 2 GiB gives up its weights to the file.
    """
    if weight_bytes(model) <= MAX_WEIGHT_BYTES:
        path.write_bytes(model.SerializeToString(deterministic=True))
        return [path]
    from onnx import external_data_helper

    beside = path.with_name(f"{path.name}.data")
    external_data_helper.convert_model_to_external_data(
        model, location=beside.name, size_threshold=SMALLEST_EXTERNAL_BYTES
    )
    external_data_helper.write_external_data_tensors(model, str(path.parent))
    path.write_bytes(model.SerializeToString(deterministic=True))
    return [path, beside]
