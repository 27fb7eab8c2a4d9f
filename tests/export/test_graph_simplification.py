"""A simplified graph computes the same, for any batch, with fewer nodes."""

from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

from fedmedclip.export.graph_simplification import simplify


@pytest.fixture
def flattening_graph() -> Any:
    """(batch, 4, 5) times (5, 3), flattened to (batch, 12) with sizes that are asked for as it runs."""

    def integers(name: str, values: list[int]) -> Any:
        return helper.make_node(
            "Constant", [], [name], value=helper.make_tensor(name, TensorProto.INT64, [len(values)], values)
        )

    nodes = [
        helper.make_node("MatMul", ["images", "weights"], ["product"]),
        helper.make_node("Shape", ["product"], ["sizes"]),
        *(integers(name, [index]) for index, name in enumerate(("zeroth", "first", "second"))),
        helper.make_node("Gather", ["sizes", "zeroth"], ["batch"]),
        helper.make_node("Gather", ["sizes", "first"], ["rows"]),
        helper.make_node("Gather", ["sizes", "second"], ["columns"]),
        helper.make_node("Mul", ["rows", "columns"], ["flat"]),
        helper.make_node("Concat", ["batch", "flat"], ["target"], axis=0),
        helper.make_node("Reshape", ["product", "target"], ["flattened"]),
    ]
    graph = helper.make_graph(
        nodes,
        "flattening",
        [
            helper.make_tensor_value_info("images", TensorProto.FLOAT, ["batch", 4, 5]),
            helper.make_tensor_value_info("weights", TensorProto.FLOAT, [5, 3]),
        ],
        [helper.make_tensor_value_info("flattened", TensorProto.FLOAT, ["batch", 12])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_only_the_batch_is_asked_for(flattening_graph: Any) -> None:
    simplified = simplify(flattening_graph)
    operators = [node.op_type for node in simplified.graph.node]
    assert "Mul" not in operators
    assert operators.count("Gather") <= 1
    assert [value.name for value in simplified.graph.input] == ["images", "weights"]


@pytest.mark.parametrize("batch", [1, 3])
def test_it_computes_the_same(flattening_graph: Any, batch: int) -> None:
    random = np.random.default_rng(0)
    inputs = {
        "images": random.standard_normal((batch, 4, 5), dtype=np.float32),
        "weights": random.standard_normal((5, 3), dtype=np.float32),
    }
    outputs = [
        onnxruntime.InferenceSession(model.SerializeToString()).run(None, inputs)[0]
        for model in (flattening_graph, simplify(flattening_graph))
    ]
    np.testing.assert_array_equal(*outputs)


def test_needs_only_what_the_graph_needed_and_gives_the_same_bytes(flattening_graph: Any) -> None:
    first, second = simplify(flattening_graph), simplify(flattening_graph)
    assert first.SerializeToString(deterministic=True) == second.SerializeToString(deterministic=True)
    assert list(first.opset_import) == list(flattening_graph.opset_import)
    assert first.ir_version == flattening_graph.ir_version
