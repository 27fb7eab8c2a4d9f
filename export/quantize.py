"""8-bit weights for the matrix products of an exported encoder.

Dynamic quantisation by ONNX Runtime: weights are int8 per tensor, activations become uint8 while the encoder
runs. Convolutions, normalisations and activations stay in float, as does the last product, the projection
to the embedding: there an error is not averaged away any more.
"""

import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from export.quiet import quiet
from protocol.bundle import Quantization
from protocol.errors import InvalidInputError

QUANTIZED_OPERATORS = ("Gemm", "MatMul")
OPERATORS_WITH_WEIGHTS = (*QUANTIZED_OPERATORS, "Conv")
SCHEME = "dynamic, weights int8 per tensor"


def quantize_matrix_products(model: Any) -> tuple[Any, Quantization]:
    """Return the 8-bit form of an `onnx.ModelProto`, and what of it is 8-bit. The given model is spent.

    Raises InvalidInputError when the encoder has no matrix product with weights beside its projection.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    weights = {initializer.name for initializer in model.graph.initializer}
    nodes = [
        node
        for node in model.graph.node
        if node.op_type in OPERATORS_WITH_WEIGHTS and any(name in weights for name in node.input)
    ]
    products = [node for node in nodes if node.op_type in QUANTIZED_OPERATORS]
    if len(products) < 2:
        raise InvalidInputError("this encoder has no matrix products to make 8-bit; export it as fp32")
    projection = products.pop()
    quantized = Counter(node.op_type for node in products)
    in_float = Counter(node.op_type for node in nodes if node not in products)
    description = Quantization(SCHEME, dict(sorted(quantized.items())), dict(sorted(in_float.items())))
    with tempfile.TemporaryDirectory() as folder, quiet():
        written = Path(folder) / "quantized.onnx"
        quantize_dynamic(
            model,
            written,
            op_types_to_quantize=list(QUANTIZED_OPERATORS),
            weight_type=QuantType.QInt8,
            per_channel=False,
            # ONNX Runtime first turns each Gemm into a MatMul of this name.
            nodes_to_exclude=[projection.name, f"{projection.name}_MatMul"],
        )
        result = onnx.load_model(written)
    return result, description
