"""Features on which heads have much to learn: three classes, two sites that differ, texts that know little.

    python -m benchmarks.wire.hard_features hard.npz --size 256 --number 0

Like `synthetic_features`, and each configuration, a size and a number, draws how hard it is from its own
seed: images per site, how far apart classes lie and how much the texts know of them, noise, and how sites
differ: in their classes, in a shift of all their images, and in what coordinates their noise is strong. The
ranges were fixed before any codec ran on them. Every third number is held out: no codec may be chosen by it.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

SIZES = (64, 256, 512)
_CLASSES, _SITES = 3, 2
_TEST_IMAGES = 3000


@dataclass(frozen=True)
class HardFeatures:
    """One configuration. Lengths are in those of a class's direction, which is 1 in a cone of length 2.

    `known` is what of the classes' directions is in the texts; `concentration` that of the Dirichlet
    distribution of a site's classes; `uneven` the standard deviation of the logarithm by which a site's
    noise differs from the other's in each coordinate; `learning_rate` that of the shared head.
    """

    size: int
    number: int
    images_per_site: int
    distance: float
    known: float
    noise: float
    shift: float
    uneven: float
    concentration: float
    learning_rate: float

    @property
    def name(self) -> str:
        """Size and number, as in `256-0`."""
        return f"{self.size}-{self.number}"

    @property
    def held_out(self) -> bool:
        """Whether nothing may be chosen by it."""
        return self.number % 3 == 2


def configuration(size: int, number: int) -> HardFeatures:
    """Return configuration `number` of embeddings of `size` values."""
    draw = np.random.default_rng([size, number, 0])
    return HardFeatures(
        size,
        number,
        images_per_site=int(draw.choice([60, 120, 240, 480])),
        distance=float(draw.choice([0.7, 1.0, 1.5])),
        known=float(draw.choice([0.0, 0.3, 0.6])),
        noise=float(draw.choice([4.0, 6.0, 9.0])),
        shift=float(draw.choice([0.3, 1.0, 2.0])),
        uneven=float(draw.choice([0.0, 0.5])),
        concentration=float(draw.choice([0.5, 1.0, 5.0])),
        learning_rate=float(draw.choice([1e-3, 3e-3])),
    )


def write_hard_features(path: Path, wanted: HardFeatures) -> None:
    """Write the file that `fedmedclip bench bandwidth --features` reads.

    Its `global_embeddings` are further images of the same sites, so many that chance counts for little.
    """
    draw = np.random.default_rng([wanted.size, wanted.number, 1])
    size = wanted.size
    cone = 2.0 * _unit(draw.normal(size=size))
    directions = _unit(draw.normal(size=(_CLASSES, size)))
    shifts = wanted.shift * _unit(draw.normal(size=(_SITES, size)))
    # Half of the noise is in a few per cent of the coordinates; CLIP has such outliers too.
    strength = wanted.noise * draw.gamma(0.5, 2.0, size) / size**0.5
    strengths = strength * np.exp(wanted.uneven * draw.normal(size=(_SITES, size)))
    shares = draw.dirichlet(np.full(_CLASSES, wanted.concentration), size=_SITES)

    def images(count: int) -> tuple[npt.NDArray[np.float32], Integers, Integers]:
        site_of = np.arange(count) % _SITES
        labels = np.array([draw.choice(_CLASSES, p=shares[site]) for site in site_of])
        ambiguity = draw.uniform(0.0, 0.5, size=(count, 1))
        other = directions[draw.integers(0, _CLASSES, count)]
        meaning = wanted.distance * ((1 - ambiguity) * directions[labels] + ambiguity * other)
        noise = strengths[site_of] * draw.normal(size=(count, size))
        return _unit(cone + meaning + shifts[site_of] + noise).astype(np.float32), labels, site_of

    gap = _unit(draw.normal(size=size))
    other_meaning = 3.0 * _unit(draw.normal(size=(_CLASSES, size)))
    embeddings, labels, site_of = images(_SITES * wanted.images_per_site)
    global_embeddings, global_labels, _ = images(_TEST_IMAGES)
    np.savez(
        path,
        embeddings=embeddings,
        labels=labels,
        sites=site_of,
        class_embeddings=_unit(cone + gap + wanted.known * directions + other_meaning).astype(np.float32),
        logit_scale=np.float32(50.0),
        global_embeddings=global_embeddings,
        global_labels=global_labels,
    )


def _unit(vectors: Floats) -> Floats:
    unit: Floats = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    return unit


def main() -> None:
    """Write one configuration's file and say what it is."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--size", type=int, default=256, help="values per embedding")
    parser.add_argument("--number", type=int, default=0, help="which configuration of this size")
    options = parser.parse_args()
    wanted = configuration(options.size, options.number)
    write_hard_features(options.out, wanted)
    print(wanted)


if __name__ == "__main__":
    main()
