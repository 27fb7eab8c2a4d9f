"""Weights stored as 16-bit floats: half the file, while everything is computed in float32 as before.

(Arithmetic in float16 is slower than in float32 on processors, and less exact.)
"""

from typing import Any

import numpy as np

SMALLEST_SIZE = 1024
LARGEST_FLOAT16 = float(np.finfo(np.float16).max)


def store_in_half_precision(model: Any) -> Any:
    """Return a copy of an `onnx.ModelProto` whose larger float32 weights are float16, each behind a Cast.

    Weights beyond the range of float16 stay float32, as do those with fewer than 1024 values.
    """
    import onnx
    from onnx import helper, numpy_helper

    result = onnx.ModelProto(ir_version=model.ir_version, producer_name=model.producer_name)
    result.opset_import.extend(model.opset_import)
    graph = result.graph
    graph.name = model.graph.name
    graph.input.extend(model.graph.input)
    graph.output.extend(model.graph.output)
    for initializer in model.graph.initializer:
        array = numpy_helper.to_array(initializer)
        if (
            array.dtype != np.float32
            or array.ndim < 2
            or array.size < SMALLEST_SIZE
            or np.abs(array).max() > LARGEST_FLOAT16
        ):
            graph.initializer.append(initializer)
            continue
        stored = f"{initializer.name}_float16"
        graph.initializer.append(numpy_helper.from_array(array.astype(np.float16), stored))
        graph.node.append(
            helper.make_node(
                "Cast", [stored], [initializer.name], f"{stored}_cast", to=onnx.TensorProto.FLOAT
            )
        )
    graph.node.extend(model.graph.node)
    return result
