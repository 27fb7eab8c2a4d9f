"""Record what numpy code does to an array as ONNX nodes.

    recording = Recording(opset=17)
    logits = private_mlp(head, recording.input("features", np.float32, rank=2))     # plain numpy code
    recording.output(logits, "logits")

So a method's forward pass is written once, in numpy, and is the same in the deployed file. Arrays that do
not depend on the input (weights, masks) are computed by numpy as ever and become constants. Element-wise
functions, matrix products, reductions over one axis and a few shapes are known; anything else raises
UnsupportedError with its name, and belongs into the tables below.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.mixins import NDArrayOperatorsMixin
from onnx import NodeProto, TensorProto, helper, numpy_helper

from fedmedclip.protocol.errors import FedMedClipError

_ELEMENTWISE: dict[Any, str] = {
    np.absolute: "Abs",
    np.add: "Add",
    np.divide: "Div",
    np.exp: "Exp",
    np.log: "Log",
    np.matmul: "MatMul",
    np.maximum: "Max",
    np.minimum: "Min",
    np.multiply: "Mul",
    np.negative: "Neg",
    np.power: "Pow",
    np.sqrt: "Sqrt",
    np.subtract: "Sub",
    np.tanh: "Tanh",
}
_COMPARISONS: dict[Any, str] = {
    np.greater: "Greater",
    np.greater_equal: "GreaterOrEqual",
    np.less: "Less",
    np.less_equal: "LessOrEqual",
}


class UnsupportedError(FedMedClipError):
    """numpy code that cannot be recorded."""


class Recording:
    """A growing ONNX graph: `nodes` and `constants`, with names that start with `prefix`."""

    def __init__(self, opset: int, prefix: str = "heads_") -> None:
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []
        self._opset = opset
        self._prefix = prefix

    def input(self, name: str, dtype: npt.DTypeLike, rank: int) -> "Recorded":
        """Return what stands for the graph's value `name` in numpy code."""
        return Recorded(self, name, np.dtype(dtype), rank)

    def output(self, value: "Recorded", name: str) -> None:
        """Give a recorded value the name `name`."""
        self.nodes.append(helper.make_node("Identity", [value.name], [name]))

    def node(self, operator: str, inputs: list[str], **attributes: Any) -> str:
        """Add a node and return its output's name."""
        name = f"{self._prefix}{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [name], **attributes))
        return name

    def constant(self, array: npt.NDArray[Any]) -> str:
        """Add a constant and return its name."""
        name = f"{self._prefix}constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def reduce(self, operator: str, value: "Recorded", axis: int, keepdims: bool) -> "Recorded":
        """Add a reduction over one axis, which is an input since opset 13 (ReduceSum) or 18 (the others)."""
        inputs, attributes = [value.name], {"keepdims": int(keepdims)}
        if operator == "ReduceSum" or self._opset >= 18:
            inputs.append(self.constant(np.array([axis], np.int64)))
        else:
            attributes["axes"] = [axis]  # type: ignore[assignment]
        name = self.node(operator, inputs, **attributes)
        return Recorded(self, name, value.dtype, value.ndim if keepdims else value.ndim - 1)


class Recorded(NDArrayOperatorsMixin):
    """Stands for an array that is only known when the graph runs; numpy's functions and operators take it."""

    def __init__(self, recording: Recording, name: str, dtype: np.dtype[Any], rank: int) -> None:
        self.recording = recording
        self.name = name
        self.dtype = dtype
        self.ndim = rank

    def __array_ufunc__(self, function: Any, method: str, *inputs: Any, **options: Any) -> "Recorded":
        table = _COMPARISONS if function in _COMPARISONS else _ELEMENTWISE
        if method != "__call__" or options or function not in table:
            raise UnsupportedError(f"numpy.{function.__name__} ({method}) has no counterpart in ONNX here")
        common = np.result_type(*(value.dtype if isinstance(value, Recorded) else value for value in inputs))
        names = [self._operand(value, common) for value in inputs]
        result = np.dtype(bool) if function in _COMPARISONS else common
        return self._add(table[function], names, result, max(map(_rank, inputs)))

    def __array_function__(
        self, function: Any, types: Any, arguments: tuple[Any, ...], options: dict[str, Any]
    ) -> "Recorded":
        if function not in _FUNCTIONS:
            raise UnsupportedError(f"numpy.{function.__name__} has no counterpart in ONNX here")
        return _FUNCTIONS[function](*arguments, **options)

    def astype(self, dtype: npt.DTypeLike) -> "Recorded":
        """As numpy's."""
        dtype = np.dtype(dtype)
        if dtype == self.dtype:
            return self
        return self._add("Cast", [self.name], dtype, self.ndim, to=helper.np_dtype_to_tensor_dtype(dtype))

    def sum(self, axis: int, keepdims: bool = False) -> "Recorded":
        """As numpy's, over one axis."""
        return self.recording.reduce("ReduceSum", self, axis, keepdims)

    def mean(self, axis: int, keepdims: bool = False) -> "Recorded":
        """As numpy's, over one axis."""
        return self.recording.reduce("ReduceMean", self, axis, keepdims)

    def max(self, axis: int, keepdims: bool = False) -> "Recorded":
        """As numpy's, over one axis."""
        return self.recording.reduce("ReduceMax", self, axis, keepdims)

    def var(self, axis: int, keepdims: bool = False) -> "Recorded":
        """As numpy's, over one axis: the mean squared distance from the mean."""
        centred: Recorded = self - self.mean(axis=axis, keepdims=True)
        squares: Recorded = centred * centred
        return squares.mean(axis=axis, keepdims=keepdims)

    def __getitem__(self, index: Any) -> "Recorded":
        """`[:, None]` of a vector."""
        if self.ndim != 1 or index != (slice(None), None):
            raise UnsupportedError(f"the index {index!r} has no counterpart in ONNX here")
        return self._add("Unsqueeze", [self.name, self._axes(1)], self.dtype, 2)

    def _operand(self, value: Any, dtype: np.dtype[Any]) -> str:
        if isinstance(value, Recorded):
            return value.astype(dtype).name
        return self.recording.constant(np.asarray(value, dtype))

    def _add(
        self, operator: str, inputs: list[str], dtype: np.dtype[Any], rank: int, **attributes: Any
    ) -> "Recorded":
        return Recorded(self.recording, self.recording.node(operator, inputs, **attributes), dtype, rank)

    def _axes(self, *axes: int) -> str:
        return self.recording.constant(np.array(axes, np.int64))


def _rank(value: Any) -> int:
    return int(getattr(value, "ndim", 0))


def _norm(array: Recorded, *, axis: int, keepdims: bool = False) -> Recorded:
    squares: Recorded = (array * array).sum(axis=axis, keepdims=keepdims)
    root: Recorded = np.sqrt(squares)  # type: ignore[call-overload]
    return root


def _where(condition: Recorded, chosen: Any, other: Any) -> Recorded:
    common = np.result_type(*(v.dtype if isinstance(v, Recorded) else v for v in (chosen, other)))
    names = [condition.name, condition._operand(chosen, common), condition._operand(other, common)]
    return condition._add("Where", names, common, max(map(_rank, (condition, chosen, other))))


def _full_like(array: Recorded, fill_value: float) -> Recorded:
    shape = array._add("Shape", [array.name], np.dtype(np.int64), 1)
    value = numpy_helper.from_array(np.array([fill_value], array.dtype))
    return array._add("ConstantOfShape", [shape.name], array.dtype, array.ndim, value=value)


_FUNCTIONS: dict[Any, Callable[..., Recorded]] = {
    np.full_like: _full_like,
    np.linalg.norm: _norm,
    np.max: Recorded.max,
    np.mean: Recorded.mean,
    np.sum: Recorded.sum,
    np.var: Recorded.var,
    np.where: _where,
}
