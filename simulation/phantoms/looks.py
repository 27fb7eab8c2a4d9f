"""How a scanner shows tissue: the `Look` of each hospital, and the range of looks that pretraining sees.

A look fixes how bright each tissue is and what the scanner does to the picture afterwards: gamma, blur, a
slow brightness bias and noise. The hospitals lie on purpose at the rim of the pretraining range or beyond
it, so that a model pretrained within the range meets images there that it only half understands. All three
weight their scans much as T2 does, so that the tissue alone does not tell which hospital an image is from.
"""

from dataclasses import dataclass, fields, replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Plane = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Look:
    """A scanner look. Tissue brightnesses and noise are fractions of full scale; lengths are in pixels."""

    width: int
    height: int
    fluid: float
    """Brightness of ventricles and sulci: dark as in T1 weighting, bright as in T2."""
    grey_matter: float
    white_matter: float
    bone: float
    scalp: float
    enhancement: float
    """Brightness of what takes up contrast agent: the rim of a ring, the body of a mass."""
    gamma: float = 1.0
    blur: float = 0.6
    """Standard deviation of the point spread."""
    bias: float = 0.1
    """Depth of the slow brightness change across the picture."""
    noise: float = 0.03


WEIGHTINGS = ("T1", "proton density", "T2")
# Ranges of brightness per weighting: fluid, grey matter, white matter.
PRETRAINING_TISSUE = {
    "T1": ((0.08, 0.28), (0.40, 0.50), (0.54, 0.64)),
    "proton density": ((0.28, 0.40), (0.42, 0.52), (0.48, 0.58)),
    "T2": ((0.56, 0.72), (0.46, 0.56), (0.36, 0.46)),
}

HOSPITAL_LOOKS = (
    Look(120, 136, 0.60, 0.52, 0.41, 0.10, 0.70, 0.82, gamma=1.2, blur=0.7, bias=0.22, noise=0.040),
    Look(112, 128, 0.56, 0.50, 0.40, 0.16, 0.62, 0.78, gamma=0.75, blur=1.1, bias=0.12, noise=0.040),
    Look(128, 144, 0.66, 0.54, 0.42, 0.08, 0.55, 0.86, gamma=1.10, blur=0.9, bias=0.25, noise=0.045),
)
GLOBAL_TEST_LOOK = Look(
    116, 132, 0.30, 0.40, 0.52, 0.20, 0.80, 0.74, gamma=0.9, blur=1.0, bias=0.25, noise=0.050
)
SERVER_REFERENCE_LOOK = Look(
    112, 128, 0.16, 0.45, 0.60, 0.12, 0.65, 0.88, gamma=1.0, blur=0.6, bias=0.1, noise=0.03
)


def draw_pretraining_look(weighting: str, generator: np.random.Generator) -> Look:
    """Return a look from the pretraining range of one of `WEIGHTINGS`, 112 x 128 pixels."""
    between = generator.uniform
    fluid, grey_matter, white_matter = (
        between(*PRETRAINING_TISSUE[weighting][tissue]) for tissue in range(3)
    )
    return Look(
        width=112,
        height=128,
        fluid=fluid,
        grey_matter=grey_matter,
        white_matter=white_matter,
        bone=between(0.05, 0.2),
        scalp=between(0.5, 0.8),
        enhancement=between(0.76, 0.95),
        gamma=between(0.8, 1.25),
        blur=between(0.4, 1.0),
        bias=between(0.0, 0.2),
        noise=between(0.01, 0.05),
    )


def vary(look: Look, generator: np.random.Generator, amount: float = 0.07) -> Look:
    """Return `look` as one examination shows it: all but the size moved by up to `amount` of itself."""
    moved = {
        field.name: getattr(look, field.name) * generator.uniform(1 - amount, 1 + amount)
        for field in fields(look)
        if field.name not in ("width", "height")
    }
    return replace(look, **moved)


def smooth_field(
    generator: np.random.Generator, height: int, width: int, waves: int, decay: float = 1.0
) -> Plane:
    """Return a random smooth field (height, width) of about unit deviation, from `waves` cosines per axis.

    Amplitudes fall as frequency ** -decay; the constant is left out, so the field varies around zero.
    """
    frequency = np.hypot(*np.meshgrid(np.arange(waves), np.arange(waves)))
    frequency[0, 0] = np.inf
    amplitude = frequency**-decay
    amplitude /= np.sqrt(np.sum(amplitude**2)) / 2
    coefficients = (generator.standard_normal((waves, waves)) * amplitude).astype(np.float32)
    rows: Plane = _cosines(height, waves) @ coefficients
    return rows @ _cosines(width, waves).T


def take_picture(tissue: Plane, look: Look, generator: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Return the 8-bit picture (height, width) that a scanner of this look takes of `tissue` in [0, 1]."""
    height, width = tissue.shape
    picture: Plane = np.clip(tissue, 0, 1) ** np.float32(look.gamma)
    blurred = _blur(height, look.blur) @ picture @ _blur(width, look.blur)
    biased: Plane = blurred * np.exp(look.bias * smooth_field(generator, height, width, waves=3))
    # Magnitude images carry Rician noise (Gudbjartsson and Patz 1995): never negative, a floor in the air.
    real, imaginary = look.noise * generator.standard_normal((2, height, width), np.float32)
    magnitude = np.clip(np.hypot(biased + real, imaginary), 0, 1)
    levels: npt.NDArray[np.uint8] = np.rint(magnitude * 255).astype(np.uint8)
    return levels


@lru_cache(maxsize=64)
def _cosines(points: int, waves: int) -> Plane:
    positions = (np.arange(points) + 0.5) / points
    return np.cos(np.pi * np.outer(positions, np.arange(waves))).astype(np.float32)


def _blur(points: int, deviation: float) -> Plane:
    """Return the (points, points) matrix that blurs one axis with a Gaussian of this deviation."""
    distance = np.subtract.outer(np.arange(points), np.arange(points))
    weights = np.exp(-0.5 * (distance / deviation) ** 2).astype(np.float32)
    # Symmetric and constant inside; at the rim there is only air, so what is lost there does not show.
    matrix: Plane = weights / weights[points // 2].sum()
    return matrix
