"""Which regions of an image carry its answer: those that it loses most by when they are blurred.

Occlusion (Zeiler and Fergus 2014, "Visualizing and Understanding Convolutional Networks", section 4.2), on
two scales that share one grid of cells. It asks an encoder for nothing but embeddings, so it works with
every encoder and every head. Blur, the scales and the grid were chosen on phantoms
(docs/results/explanations.md).
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

Pixels = npt.NDArray[np.uint8]
Classify = Callable[[Pixels], npt.NDArray[np.float32]]
"""Images uint8 (N, height, width, 3) to probabilities float32 (N, C)."""
Cover = Callable[[Pixels], Pixels]
"""An image to what its patches are replaced by, of the same shape."""

CELLS = 8
"""A map has so many cells on each side."""
BLUR = 1 / 16
"""Standard deviation of the blur that covers a patch, as a share of the width."""
LEAST_LOSS = 0.05
"""Where no patch loses the answer more (nats), its map says little."""
SAYS_LITTLE = "No region carries the answer by itself: the map says little."
_AT_ONCE = 16


@dataclass(frozen=True)
class Scale:
    """Square patches: their side and their step, in cells."""

    side: int
    step: int

    @property
    def patches(self) -> list[tuple[slice, slice]]:
        """The cells of each patch, row by row."""
        starts = range(0, CELLS - self.side + 1, self.step)
        return [(slice(y, y + self.side), slice(x, x + self.side)) for y in starts for x in starts]


SCALES = (Scale(4, 2), Scale(2, 1))
"""From coarse to fine: 9 and 49 patches."""


@dataclass(frozen=True)
class Regions:
    """What carries an answer. `kind` says how it was found, with the number of patches of each scale.

    `map` is float32 (8, 8) of cells from the top left: 1 is the cell that carries most, 0 one without which
    the answer would be as sure, or surer. `largest_loss` is the most that the answer's log-probability (nats)
    loses by a patch: near 0, nothing in the map means much.
    """

    kind: str
    map: npt.NDArray[np.float32]
    largest_loss: float

    def in_pixels(self, height: int, width: int) -> npt.NDArray[np.float32]:
        """Return the map as float32 (height, width), smooth from cell to cell."""
        smooth = Image.fromarray(self.map).resize((width, height), Image.Resampling.BILINEAR)
        return np.asarray(smooth, np.float32)


def blurred(pixels: Pixels, share: float = BLUR) -> Pixels:
    """Return the image blurred by a Gaussian, whose standard deviation is a share of the width."""
    return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(share * pixels.shape[1])))


def regions_of(
    classify: Classify,
    pixels: Pixels,
    seconds: float | None = None,
    *,
    scales: Sequence[Scale] = SCALES,
    cover: Cover = blurred,
) -> Regions:
    """Return which regions of an image, uint8 (height, width, 3), carry its most probable class.

    With `seconds`, a finer scale is left out when it would end later than that; the coarsest is never left
    out. Without, equal input gives an equal map.
    """
    started = time.perf_counter()
    covered = cover(pixels)
    rows, columns = (np.rint(np.linspace(0, size, CELLS + 1)).astype(int) for size in pixels.shape[:2])

    def images(patches: Sequence[tuple[slice, slice]]) -> Iterator[Pixels]:
        for y, x in patches:
            image = pixels.copy()
            place = slice(rows[y.start], rows[y.stop]), slice(columns[x.start], columns[x.stop])
            image[place] = covered[place]
            yield image

    whole = classify(pixels[None])
    label = int(whole[0].argmax())
    sure = log_probability(whole, label)[0]
    total, counts, largest, done = np.zeros((CELLS, CELLS)), list[int](), 0.0, 0
    for scale in scales:
        if done and seconds is not None:
            taken = time.perf_counter() - started
            if taken * (1 + len(scale.patches) / done) > seconds:
                break
        losses = sure - np.concatenate(
            [log_probability(classify(np.stack(some)), label) for some in _some(images(scale.patches))]
        )
        done += len(losses)
        largest = max(largest, float(losses.max()))
        counts.append(len(losses))
        cells = _mean_over_patches(scale, losses)
        total += cells / max(float(np.abs(cells).max()), 1e-12)
    positive = np.maximum(total, 0)
    shown = positive / max(float(positive.max()), 1e-12)
    patches = ", ".join(f"{round(count**0.5)} x {round(count**0.5)}" for count in counts)
    return Regions(f"occlusion, {patches} patches", shown.astype(np.float32), largest)


def log_probability(probabilities: npt.NDArray[np.float32], label: int) -> npt.NDArray[np.float64]:
    """Return the logarithm (N,) of a class's probability (N, C), exact also where that is 1 in float32."""
    doubles = np.maximum(probabilities.astype(np.float64), np.finfo(np.float32).tiny)
    others = np.delete(doubles, label, axis=1).sum(axis=1)
    logarithms: npt.NDArray[np.float64] = -np.log1p(others / doubles[:, label])
    return logarithms


def _mean_over_patches(scale: Scale, losses: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return for each cell the mean loss (8, 8) of the patches that cover it."""
    total, covering = np.zeros((CELLS, CELLS)), np.zeros((CELLS, CELLS))
    for patch, loss in zip(scale.patches, losses, strict=True):
        total[patch] += loss
        covering[patch] += 1
    return total / covering


def _some(images: Iterator[Pixels]) -> Iterator[list[Pixels]]:
    waiting = []
    for image in images:
        waiting.append(image)
        if len(waiting) == _AT_ONCE:
            yield waiting
            waiting = []
    if waiting:
        yield waiting
