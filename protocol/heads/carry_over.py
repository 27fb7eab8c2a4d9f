"""What of a head is carried over into the next run, whose bundle may have other classes. No PyTorch.

An array of the same name and shape is carried over as it is. One with an axis of classes keeps the rows (or
columns) of the classes that stay, by their names; those of new classes begin as the method says.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedmedclip.protocol.heads.head import HeadSpecification, NamedArrays

# Two numbers of classes that no other size of an array equals by accident, as both would have to.
_CLASSES_TRIED = (11, 13)


@dataclass(frozen=True)
class CarriedOver:
    """The head to begin with, and a sentence on each of its arrays. `arrays` counts those that were carried
    over, whole or in part.
    """

    head: NamedArrays
    sentences: tuple[str, ...]
    arrays: int


def class_axes(specification_of: Callable[[int], HeadSpecification]) -> dict[str, int]:
    """Return by name the axis along which an array has one entry for each class; others are left out.

    `specification_of` gives the arrays for a number of classes.
    """
    few, more = _CLASSES_TRIED
    axes = {}
    larger = {tensor.name: tensor.shape for tensor in specification_of(more).tensors}
    for tensor in specification_of(few).tensors:
        shape = larger.get(tensor.name, ())
        if len(shape) != len(tensor.shape):
            continue
        differ = [axis for axis, size in enumerate(tensor.shape) if size != shape[axis]]
        if len(differ) == 1 and (tensor.shape[differ[0]], shape[differ[0]]) == (few, more):
            axes[tensor.name] = differ[0]
    return axes


def carried_over(
    first: Mapping[str, npt.NDArray[np.float32]],
    before: Mapping[str, npt.NDArray[np.float32]],
    axes: Mapping[str, int],
    classes: Sequence[str],
    classes_before: Sequence[str] | None,
) -> CarriedOver:
    """Return `first`, what the run begins with otherwise, with what is carried over from the head `before`.

    `axes` as `class_axes` gives them; `classes` and `classes_before` are the bundles' class names in their
    order, None where those of before are not known: then arrays with an axis of classes begin anew, unless
    they have the same shape.
    """
    head: NamedArrays = {}
    sentences, count = [], 0
    for name, array in first.items():
        found = before.get(name)
        head[name], said = _one(array, found, axes.get(name), classes, classes_before)
        sentences.append(f"{name}: {said}")
        count += head[name] is not array
    return CarriedOver(head, tuple(sentences), count)


def _one(
    first: npt.NDArray[np.float32],
    before: npt.NDArray[np.float32] | None,
    axis: int | None,
    classes: Sequence[str],
    classes_before: Sequence[str] | None,
) -> tuple[npt.NDArray[np.float32], str]:
    if before is None:
        return first, "begins anew, the run before had none"
    same = first.shape == before.shape
    if same and (axis is None or classes_before is None or list(classes) == list(classes_before)):
        return before.copy(), "carried over"
    other = [size for place, size in enumerate(first.shape) if place != axis]
    if axis is None or classes_before is None or first.ndim != before.ndim or other != [
        size for place, size in enumerate(before.shape) if place != axis
    ]:  # fmt: skip
        return first, f"begins anew, of shape {first.shape} where the run before had {before.shape}"
    stay = [name for name in classes if name in classes_before]
    if not stay:
        return first, "begins anew, no class stays"
    values = np.moveaxis(first.copy(), axis, 0)
    source = np.moveaxis(before, axis, 0)
    for name in stay:
        values[classes.index(name)] = source[classes_before.index(name)]
    new = [name for name in classes if name not in classes_before]
    gone = [name for name in classes_before if name not in classes]
    said = f"carried over for {', '.join(stay)}"
    said += f"; {', '.join(new)} begins anew" if new else ""
    said += f"; without {', '.join(gone)}" if gone else ""
    return np.ascontiguousarray(np.moveaxis(values, 0, axis)), said
