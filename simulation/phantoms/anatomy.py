"""Brain-like phantoms: axial slices made of ellipses (Shepp and Logan 1974), every head a little different.

The picture is painted in layers, from the outside in: scalp, skull, fluid, grey and white matter with
sulci, midline, ventricles, then the finding. Coordinates: x to the right, y down, half the height is 1.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from fedmedclip.simulation.phantoms.looks import Look, Plane, smooth_field, take_picture

FINDINGS = ("midline_shift", "no_finding", "ring_lesion", "solid_mass")
SCALP = 0.06
FLUID_GAP = 0.03
"""Thickness of the scalp, and of the fluid around the brain, as fractions of the head's radius."""

# Of each kind of lesion, the ranges of `Lesion.rim` and `Lesion.core`.
LESIONS = {
    "ring_lesion": ((0.22, 0.45), (0.0, 0.45)),
    "solid_mass": ((0.9, 1.4), (0.7, 1.0)),
}


@dataclass(frozen=True)
class Lesion:
    """A roundish lesion: centre and radius in half heights, brightnesses relative to the look."""

    x: float
    y: float
    radius: float
    elongation: float
    angle: float
    rim: float
    """Thickness of the enhancing rim as a fraction of the radius; 1 and above fills the lesion."""
    core: float
    """How much of the enhancement the inside keeps: 0 for fluid, 1 for solid tissue."""
    contrast: float
    oedema: float
    """Depth of the darker halo around it."""


@dataclass(frozen=True)
class Anatomy:
    """One head: its proportions, how far the midline is pushed, and a lesion if there is one."""

    half_width: float
    half_height: float
    tilt: float
    skull: float
    ventricle: float
    ventricle_balance: float
    """Size of the left lateral ventricle relative to the right one."""
    shift: float
    """Displacement of the midline to the right at its strongest point, in half heights."""
    shift_at: float
    lesion: Lesion | None


def draw_anatomy(finding: str, generator: np.random.Generator) -> Anatomy:
    """Return a random head with `finding`, one of `FINDINGS`.

    Lesions push the midline a little, and healthy heads are not quite symmetric, so neither gives a
    finding away by itself.
    """
    between = generator.uniform
    lesion = _draw_lesion(finding, generator) if finding in LESIONS else None
    if finding == "midline_shift":
        shift = int(generator.choice((-1, 1))) * between(0.08, 0.18)
    elif lesion is not None:
        shift = -math.copysign(between(0.0, 0.05), lesion.x)
    else:
        shift = between(-0.03, 0.03)
    return Anatomy(
        half_width=between(0.66, 0.74),
        half_height=between(0.82, 0.89),
        tilt=between(-0.14, 0.14),
        skull=between(0.035, 0.06),
        ventricle=between(0.75, 1.3),
        # The ventricle on the side that the push comes from is squeezed.
        ventricle_balance=math.exp(between(-0.15, 0.15) - 3.0 * shift),
        shift=shift,
        shift_at=between(-0.2, 0.2),
        lesion=lesion,
    )


def render_phantom(finding: str, look: Look, generator: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Return an 8-bit greyscale slice (look.height, look.width) of a new random head with `finding`."""
    anatomy = draw_anatomy(finding, generator)
    return take_picture(paint(anatomy, look, generator), look, generator)


def paint(anatomy: Anatomy, look: Look, generator: np.random.Generator) -> Plane:
    """Return the tissue brightness (height, width), float32 in [0, 1], before the scanner adds its own."""
    height, width = look.height, look.width
    x, y = _coordinates(height, width)
    x, y = _rotate(x - generator.uniform(-0.03, 0.03), y - generator.uniform(-0.03, 0.03), anatomy.tilt)
    x = x + 0.02 * smooth_field(generator, height, width, waves=5)
    y = y + 0.02 * smooth_field(generator, height, width, waves=5)
    folds = smooth_field(generator, height, width, waves=20, decay=0.4)
    lobes = smooth_field(generator, height, width, waves=9)

    radius = np.hypot(x / anatomy.half_width, y / anatomy.half_height)
    skull_rim = 1 - SCALP
    fluid_rim = skull_rim - anatomy.skull
    brain_rim = fluid_rim - FLUID_GAP
    white_rim = brain_rim - 0.17 + 0.07 * folds
    picture = np.zeros((height, width), np.float32)
    picture = _layer(picture, look.scalp, 1 - radius)
    picture = _layer(picture, look.bone, skull_rim - radius)
    picture = _layer(picture, look.fluid, fluid_rim - radius)
    picture = _layer(picture, look.grey_matter * (1 + 0.04 * lobes), brain_rim - radius)
    picture = _layer(picture, look.white_matter * (1 + 0.03 * folds), white_rim - radius)

    # Inside the skull everything near the middle moves with the push; the skull holds the rest in place.
    push = np.exp(-(((y - anatomy.shift_at) / 0.45) ** 2)) * np.clip(1 - radius**2, 0, 1)
    inner_x = x - anatomy.shift * push
    sulci = np.exp(-((folds / 0.16) ** 2)) * _edge(radius - 0.66) * _edge(brain_rim - radius)
    picture = _layer(picture, look.fluid, None, 0.7 * sulci)
    off_centre: Plane = np.abs(y) - np.float32(0.26)
    falx = np.exp(-((inner_x / 0.014) ** 2)) * _edge(off_centre) * _edge(brain_rim - radius)
    picture = _layer(picture, look.fluid, None, 0.9 * falx)
    picture = _paint_deep_structures(picture, anatomy, look, inner_x, y)
    if anatomy.lesion is not None:
        picture = _paint_lesion(picture, anatomy.lesion, look, x, y, lobes, inside=_edge(brain_rim - radius))
    return picture


def _draw_lesion(finding: str, generator: np.random.Generator) -> Lesion:
    between = generator.uniform
    distance, direction = between(0.28, 0.52), between(0, 2 * math.pi)
    rim, core = LESIONS[finding]
    return Lesion(
        x=0.85 * distance * math.cos(direction),
        y=distance * math.sin(direction),
        radius=between(0.10, 0.20),
        elongation=between(1.0, 1.5),
        angle=between(0, math.pi),
        rim=between(*rim),
        core=between(*core),
        contrast=between(0.5, 1.0),
        oedema=between(0.0, 0.35),
    )


def _paint_deep_structures(picture: Plane, anatomy: Anatomy, look: Look, x: Plane, y: Plane) -> Plane:
    for side, size in ((-1, anatomy.ventricle * anatomy.ventricle_balance), (1, anatomy.ventricle)):
        nucleus = _ellipse(x, y, side * 0.20, 0.08, 0.085, 0.15, side * 0.3)
        picture = _layer(picture, look.grey_matter, nucleus)
        for centre_y, length, slant in ((-0.14, 0.17, 0.35), (0.24, 0.15, -0.5)):
            horn = _ellipse(x, y, side * 0.095, centre_y, 0.048 * size, length * size**0.5, side * slant)
            picture = _layer(picture, look.fluid, horn)
    return _layer(picture, look.fluid, _ellipse(x, y, 0.0, 0.05, 0.018 * anatomy.ventricle, 0.08, 0.0))


def _paint_lesion(
    picture: Plane, lesion: Lesion, look: Look, x: Plane, y: Plane, lobes: Plane, inside: Plane
) -> Plane:
    along, across = _rotate(x - lesion.x, y - lesion.y, lesion.angle)
    radius = np.hypot(along / lesion.elongation, across * lesion.elongation**0.5) / lesion.radius
    radius = radius * (1 + 0.12 * lobes)
    halo = lesion.oedema * np.exp(-((np.maximum(radius - 1, 0) / 0.6) ** 2)) * inside
    picture = _layer(picture, look.grey_matter * 0.6 + look.fluid * 0.4, None, halo)
    bright = look.grey_matter + lesion.contrast * (look.enhancement - look.grey_matter)
    core = look.fluid + lesion.core * (bright - look.fluid)
    picture = _layer(picture, bright, None, _edge((1 - radius) * lesion.radius) * inside)
    return _layer(picture, core, None, _edge((1 - lesion.rim - radius) * lesion.radius) * inside)


def _ellipse(
    x: Plane, y: Plane, centre_x: float, centre_y: float, half_width: float, half_height: float, angle: float
) -> Plane:
    """Return about the distance to the rim of an ellipse, positive inside."""
    along, across = _rotate(x - centre_x, y - centre_y, angle)
    distance: Plane = (1 - np.hypot(along / half_width, across / half_height)) * min(half_width, half_height)
    return distance


def _layer(
    picture: Plane, brightness: float | Plane, distance: Plane | None, cover: Plane | None = None
) -> Plane:
    """Paint `brightness` where the signed distance is positive, or as thickly as `cover` in [0, 1] says."""
    if cover is None:
        assert distance is not None
        cover = _edge(distance)
    painted: Plane = picture + cover * (brightness - picture)
    return painted


def _edge(distance: Plane) -> Plane:
    """Return 1 well inside, 0 well outside, and a ramp about one pixel wide between."""
    ramp: Plane = np.clip(0.5 + distance / 0.02, 0, 1)
    return ramp


def _rotate(x: Plane, y: Plane, angle: float) -> tuple[Plane, Plane]:
    cosine, sine = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return cosine * x + sine * y, cosine * y - sine * x


@lru_cache(maxsize=16)
def _coordinates(height: int, width: int) -> tuple[Plane, Plane]:
    step = 2 / height
    x = (np.arange(width, dtype=np.float32) - (width - 1) / 2) * step
    y = (np.arange(height, dtype=np.float32) - (height - 1) / 2) * step
    return np.meshgrid(x, y)[0], np.meshgrid(x, y)[1]
