"""Give a traced graph its weights, and write it to disk whatever its size.

The graph is traced without weights and gets them here, straight from PyTorch's memory. So no weight is copied
through a protocol buffer, which ends at 2 GiB, and an export needs little more memory than the model.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

if TYPE_CHECKING:
    import torch

# Weights above this get a file of their own, which ONNX Runtime maps instead of reading and copying it: a
# ViT-B/32 in int8 opens in two thirds of the time with 60 MB less. (A graph's own file also ends at 2 GiB.)
MAX_WEIGHT_BYTES_INSIDE = 2**24
# Weights smaller than this stay in the graph's own file.
SMALLEST_EXTERNAL_BYTES = 1024
PAGE_BYTES = 4096


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


def write_model(model: Any, path: Path) -> None:
    """Write an `onnx.ModelProto` to `path`; its weights to `path` + ".data" if they exceed 16 MiB.

    The same model gives the same bytes. Without changing `model`.
    """
    if weight_bytes(model) <= MAX_WEIGHT_BYTES_INSIDE:
        path.write_bytes(model.SerializeToString(deterministic=True))
        return
    import onnx

    graph = onnx.ModelProto(ir_version=model.ir_version, producer_name=model.producer_name)
    graph.opset_import.extend(model.opset_import)
    for field in ("node", "input", "output"):
        getattr(graph.graph, field).extend(getattr(model.graph, field))
    graph.graph.name = model.graph.name
    beside = path.with_name(f"{path.name}.data")
    with beside.open("wb") as file:
        for weight in model.graph.initializer:
            graph.graph.initializer.append(_moved_to_file(weight, file, beside.name))
    path.write_bytes(graph.SerializeToString(deterministic=True))


def _moved_to_file(weight: Any, file: BinaryIO, location: str) -> Any:
    """Return an initializer whose values are in `file`, on a page of their own so that they can be mapped."""
    from onnx import TensorProto

    if len(weight.raw_data) < SMALLEST_EXTERNAL_BYTES:
        return weight
    file.write(b"\0" * (-file.tell() % PAGE_BYTES))
    moved = TensorProto(name=weight.name, data_type=weight.data_type, dims=weight.dims)
    moved.data_location = TensorProto.EXTERNAL
    place = {"location": location, "offset": str(file.tell()), "length": str(len(weight.raw_data))}
    for key, value in place.items():
        moved.external_data.add(key=key, value=value)
    file.write(weight.raw_data)
    return moved
