"""A bundle's text tower with gradients: the exported ONNX graph, computed by PyTorch node by node.

ONNX Runtime gives no gradient. The graph has few operations, each with a counterpart here; the weights are
those of the file. Vectors can take the place of word embeddings, which is what prompt learning trains.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fedmedclip.edge_client.features.text_encoder import INPUT, OUTPUT
from fedmedclip.protocol.errors import BundleError, InvalidInputError

Attributes = Mapping[str, Any]


class TextGraph:
    """The text tower of a bundle: tokens to unit embeddings. `device` is where it computes.

    `width` is the length of a word embedding. Raises BundleError for a file that is no ONNX graph, and
    InvalidInputError for a graph with other operations than these.
    """

    def __init__(self, path: Path, device: str = "cpu") -> None:
        import onnx
        from onnx import numpy_helper

        try:
            graph = onnx.load(path).graph
        except Exception as error:
            # onnx's reader has no error class of its own.
            raise BundleError(f"{path} cannot be read ({error}); export the bundle again") from error
        self._constants = {
            initializer.name: torch.from_numpy(numpy_helper.to_array(initializer).copy()).to(device)
            for initializer in graph.initializer
        }
        self._nodes = [
            (
                node.op_type,
                list(node.input),
                node.output[0],
                {one.name: _value(onnx.helper.get_attribute_value(one)) for one in node.attribute},
            )
            for node in graph.node
        ]
        if unknown := sorted({operation for operation, *_ in self._nodes} - _OPERATIONS.keys()):
            raise InvalidInputError(
                f"{path} has the operation {unknown[0]}, which has no gradient here; prompts can be learned "
                "with the text towers of CLIP's own form"
            )
        table = next((inputs[0] for kind, inputs, *_ in self._nodes if _looks_up(kind, inputs)), None)
        if table is None:
            raise InvalidInputError(
                f"{path} looks no word up by its token: prompts cannot be learned with it"
            )
        self.width = int(self._constants[table].shape[1])

    def encode(self, tokens: Tensor, context: Tensor | None = None) -> Tensor:
        """Return unit embeddings float32 (N, D) of tokens int64 (N, length).

        `context` (M, width) stands in each text for the word embeddings of tokens 1 to M.
        """
        values: dict[str, Tensor | None] = {**self._constants, INPUT: tokens, "": None}
        for kind, inputs, output, attributes in self._nodes:
            found = _OPERATIONS[kind]([values[name] for name in inputs], attributes)
            if context is not None and _looks_up(kind, inputs):
                after = found[:, 1 + len(context) :]
                found = torch.cat([found[:, :1], context.expand(len(tokens), -1, -1), after], dim=1)
            values[output] = found
        embeddings = values[OUTPUT]
        assert embeddings is not None
        return embeddings


def _looks_up(operation: str, inputs: Sequence[str]) -> bool:
    return operation == "Gather" and inputs[1] == INPUT


def _value(attribute: Any) -> Any:
    """Return an attribute; a tensor as PyTorch's."""
    from onnx import TensorProto, numpy_helper

    if isinstance(attribute, TensorProto):
        return torch.from_numpy(numpy_helper.to_array(attribute).copy())
    return attribute


def _gather(inputs: Sequence[Any], attributes: Attributes) -> Tensor:
    data, indices = inputs
    axis = attributes.get("axis", 0)
    chosen: Tensor = data.index_select(axis, indices.reshape(-1))
    return chosen.reshape((*data.shape[:axis], *indices.shape, *data.shape[axis + 1 :]))


def _layer_normalization(inputs: Sequence[Any], attributes: Attributes) -> Tensor:
    data, weight, bias = inputs
    return torch.nn.functional.layer_norm(data, weight.shape, weight, bias, attributes.get("epsilon", 1e-5))


def _slice(inputs: Sequence[Any], attributes: Attributes) -> Tensor:
    data, starts, ends, axes = inputs[:4]
    steps = inputs[4].tolist() if len(inputs) > 4 else [1] * len(axes)
    found: Tensor = data
    for start, end, axis, step in zip(starts.tolist(), ends.tolist(), axes.tolist(), steps, strict=True):
        window = [slice(None)] * found.ndim
        window[axis] = slice(start, end, step)
        found = found[tuple(window)]
    return found


def _reshape(inputs: Sequence[Any], attributes: Attributes) -> Tensor:
    data, shape = inputs
    # A 0 keeps the length of that axis.
    sizes = [data.shape[axis] if size == 0 else size for axis, size in enumerate(shape.tolist())]
    reshaped: Tensor = data.reshape(sizes)
    return reshaped


def _flatten(inputs: Sequence[Any], attributes: Attributes) -> Tensor:
    (data,) = inputs
    flat: Tensor = data.reshape(data.shape[: attributes.get("axis", 1)].numel(), -1)
    return flat


def _norm(inputs: Sequence[Any], attributes: Attributes) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(
        inputs[0], dim=tuple(attributes["axes"]), keepdim=bool(attributes.get("keepdims", 1))
    )
    return norm


def _argmax(inputs: Sequence[Any], attributes: Attributes) -> Tensor:
    found: Tensor = inputs[0].argmax(attributes.get("axis", 0), keepdim=bool(attributes.get("keepdims", 1)))
    return found


def _shape(inputs: Sequence[Any], attributes: Attributes) -> Tensor:
    return torch.tensor(inputs[0].shape, device=inputs[0].device)


def _range(inputs: Sequence[Any], attributes: Attributes) -> Tensor:
    start, limit, delta = (int(value) for value in inputs)
    return torch.arange(start, limit, delta, device=inputs[0].device)


def _clip(inputs: Sequence[Any], attributes: Attributes) -> Tensor:
    data, low, high = (*inputs, None, None)[:3]
    found: Tensor = torch.clamp(data, low, high)
    return found


_OPERATIONS: dict[str, Callable[[Sequence[Any], Attributes], Tensor]] = {
    "Add": lambda inputs, _: inputs[0] + inputs[1],
    "ArgMax": _argmax,
    "Clip": _clip,
    "Constant": lambda _, attributes: attributes["value"],
    "Div": lambda inputs, _: inputs[0] / inputs[1],
    "Erf": lambda inputs, _: torch.erf(inputs[0]),
    "Expand": lambda inputs, _: inputs[0].expand(inputs[1].tolist()),
    "Flatten": _flatten,
    "Gather": _gather,
    "LayerNormalization": _layer_normalization,
    "MatMul": lambda inputs, _: inputs[0] @ inputs[1],
    "Mul": lambda inputs, _: inputs[0] * inputs[1],
    "Range": _range,
    "ReduceL2": _norm,
    "Reshape": _reshape,
    "Shape": _shape,
    "Sigmoid": lambda inputs, _: torch.sigmoid(inputs[0]),
    "Slice": _slice,
    "Softmax": lambda inputs, attributes: torch.softmax(inputs[0], attributes.get("axis", -1)),
    "Transpose": lambda inputs, attributes: inputs[0].permute(attributes["perm"]),
}
