"""8-bit weights for the matrix products of an exported encoder.

Dynamic quantisation: weights are int8, with one scale for a whole matrix or one for each of its columns;
activations become uint8 while the encoder runs. Convolutions, normalisations and activations stay in float,
as does the last product, the projection to the embedding: there an error is not averaged away any more.
"""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fedmedclip.export.onnx_rewrite import Replacement, replace_nodes
from fedmedclip.protocol.bundle.bundle import Quantization
from fedmedclip.protocol.errors import InvalidInputError

QUANTIZED_OPERATORS = ("Gemm", "MatMul")
OPERATORS_WITH_WEIGHTS = (*QUANTIZED_OPERATORS, "Conv")
# Not 127: processors with AVX2 and no VNNI add two products of a uint8 and an int8 in 16 bits. That sum would
# saturate and give another embedding (cosine 0.98 for ViT-B/32); 2 * 255 * 63 fits.
LARGEST_INT8 = 63
Granularity = Literal["tensor", "channel"]


@dataclass(frozen=True)
class Product:
    """A matrix product with weights: `inputs` names what it multiplies, the weights, and perhaps a bias.

    `matrix` is float32 (inputs, outputs).
    """

    name: str
    operator: str
    inputs: tuple[str, ...]
    output: str
    matrix: npt.NDArray[np.float32]


def matrix_products(model: Any) -> list[Product]:
    """Return the products of an `onnx.ModelProto` that can be quantised, in the graph's order.

    The last one, the projection, is left out. Raises InvalidInputError when there is no other.
    """
    weights = {initializer.name: initializer for initializer in model.graph.initializer}
    found = [
        _product(node, weights[node.input[1]])
        for node in model.graph.node
        if node.op_type in QUANTIZED_OPERATORS
        and node.input[1] in weights
        and len(weights[node.input[1]].dims) == 2
    ]
    if len(found) < 2:
        raise InvalidInputError(
            "this encoder has no matrix products to quantise; export it with --precision fp32 or fp16"
        )
    return found[:-1]


def quantize_matrix_products(
    model: Any, granularity: Granularity = "tensor", in_float: Collection[str] = ()
) -> tuple[Any, Quantization]:
    """Return the 8-bit form of an `onnx.ModelProto`, which is left as it is, and what of it is 8-bit.

    `granularity` says whether a matrix has one scale or one for each of its columns; the products named in
    `in_float` stay as they are. Raises InvalidInputError when the encoder has no matrix product with weights
    beside its projection.
    """
    products = {product.name: product for product in matrix_products(model) if product.name not in in_float}
    quantized_inputs: set[str] = set()

    def replacement(product: Product) -> Replacement:
        first = product.inputs[0] not in quantized_inputs
        quantized_inputs.add(product.inputs[0])
        return _eight_bit(product, granularity, quantize_input=first)

    weights = {initializer.name for initializer in model.graph.initializer}
    with_weights = [
        node
        for node in model.graph.node
        if node.op_type in OPERATORS_WITH_WEIGHTS and any(name in weights for name in node.input)
    ]
    quantized = Counter(node.op_type for node in with_weights if node.name in products)
    kept = Counter(node.op_type for node in with_weights if node.name not in products)
    description = Quantization(
        f"dynamic, weights int8 per {granularity}",
        dict(sorted(quantized.items())),
        dict(sorted(kept.items())),
    )
    return replace_nodes(model, products, replacement), description


def quantized_matrix(
    matrix: npt.NDArray[np.float32], granularity: Granularity
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Return int8 (inputs, outputs) and float32 scales, of shape () per tensor or (outputs,) per channel."""
    axis = 0 if granularity == "channel" else None
    largest = np.maximum(matrix.max(axis=axis), -matrix.min(axis=axis))
    scale = np.maximum(largest / LARGEST_INT8, np.finfo(np.float32).tiny).astype(np.float32)
    scaled = matrix / scale
    return np.rint(scaled, out=scaled).astype(np.int8), scale


def _product(node: Any, initializer: Any) -> Product:
    from onnx import numpy_helper

    matrix = numpy_helper.to_array(initializer)
    if any(attribute.name == "transB" and attribute.i for attribute in node.attribute):
        matrix = matrix.T
    return Product(node.name, node.op_type, tuple(node.input), node.output[0], matrix)


def _eight_bit(product: Product, granularity: Granularity, *, quantize_input: bool) -> Replacement:
    """Return the nodes that ONNX Runtime fuses into one product of integers.

    A product that multiplies the same as one before it uses that one's 8-bit input.
    """
    from onnx import helper

    name, source = product.name, product.inputs[0]
    weights, weight_scale = quantized_matrix(product.matrix, granularity)
    arrays: dict[str, npt.NDArray[Any]] = {
        f"{name}_weight": weights,
        f"{name}_weight_scale": weight_scale,
        f"{name}_weight_zero": np.zeros(weight_scale.shape, dtype=np.int8),
    }
    input_names = [f"{source}_8bit", f"{source}_scale", f"{source}_zero"]
    nodes = []
    if quantize_input:
        nodes.append(helper.make_node("DynamicQuantizeLinear", [source], input_names, f"{source}_quantize"))
    product_inputs = [input_names[0], f"{name}_weight", input_names[2], f"{name}_weight_zero"]
    last = f"{name}_product" if len(product.inputs) > 2 else product.output
    nodes += [
        helper.make_node(
            "Mul", [input_names[1], f"{name}_weight_scale"], [f"{name}_scale"], f"{name}_scales"
        ),
        helper.make_node("MatMulInteger", product_inputs, [f"{name}_sum"], f"{name}_integers"),
        helper.make_node("Cast", [f"{name}_sum"], [f"{name}_float"], f"{name}_cast", to=1),
        helper.make_node("Mul", [f"{name}_float", f"{name}_scale"], [last], f"{name}_rescale"),
    ]
    if len(product.inputs) > 2:
        nodes.append(helper.make_node("Add", [last, product.inputs[2]], [product.output], f"{name}_bias"))
    return Replacement(nodes, arrays)
