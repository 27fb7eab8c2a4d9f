"""A copy of an ONNX graph with some nodes replaced; weights that nothing uses any more are left out."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy.typing as npt

Subject = TypeVar("Subject")


@dataclass(frozen=True)
class Replacement:
    """Nodes to put in the place of one, and the constants that they need, by name."""

    nodes: list[Any]
    arrays: dict[str, npt.NDArray[Any]]


def replace_nodes(
    model: Any, subjects: Mapping[str, Subject], replacement: Callable[[Subject], Replacement]
) -> Any:
    """Return a copy of an `onnx.ModelProto` in which each node named in `subjects` gave way to others."""
    from onnx import ModelProto, numpy_helper

    result = ModelProto(ir_version=model.ir_version, producer_name=model.producer_name)
    result.opset_import.extend(model.opset_import)
    graph = result.graph
    graph.name = model.graph.name
    graph.input.extend(model.graph.input)
    graph.output.extend(model.graph.output)
    for node in model.graph.node:
        if node.name not in subjects:
            graph.node.append(node)
            continue
        replaced = replacement(subjects[node.name])
        graph.node.extend(replaced.nodes)
        for name, array in replaced.arrays.items():
            graph.initializer.append(numpy_helper.from_array(array, name))
    used = {name for node in graph.node for name in node.input}
    graph.initializer.extend(weight for weight in model.graph.initializer if weight.name in used)
    return result
