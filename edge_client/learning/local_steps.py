"""The order in which a site's images are trained on: batches of a round, and batches of a target domain."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]


def epochs(
    order: np.random.Generator, images: int, batch_size: int, number: int, steps: int, drop_last: bool = False
) -> Iterator[list[Indices]]:
    """Yield the batches of each epoch: of `number` epochs, or of as many as make up `steps` > 0.

    `drop_last` as in `batches`.
    """
    done = 0
    while number > 0 if steps == 0 else done < steps:
        found = list(batches(order.permutation(images), batch_size, drop_last))
        if steps > 0:
            found = found[: steps - done]
        yield found
        done += len(found)
        number -= 1


def batches(order: Indices, batch_size: int, drop_last: bool = False) -> Iterator[Indices]:
    """Cut `order` into batches; a last single image joins the batch before it.

    Batch norm has no variance over one image, and its image-text loss is 0. Joining uses every image in
    every epoch. With `drop_last` a last batch that is smaller than the others is left out; the only one is
    not, for a site of few images would then train on nothing.
    """
    if drop_last and len(order) > batch_size:
        order = order[: len(order) - len(order) % batch_size]
    starts = list(range(0, len(order), batch_size))
    if len(starts) > 1 and len(order) - starts[-1] == 1:
        starts.pop()
    for start, end in zip(starts, [*starts[1:], len(order)], strict=True):
        yield order[start:end]


def class_weights(labels: Indices) -> npt.NDArray[np.float32]:
    """Return (N,) weights, 1 on average, that make every class at the site count the same."""
    counts = np.bincount(labels)
    present = int((counts > 0).sum())
    weights: npt.NDArray[np.float32] = (len(labels) / (present * counts[labels])).astype(np.float32)
    return weights
