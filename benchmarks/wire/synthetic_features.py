"""CLIP-like features of any size, for measurements that no real data set at hand is large or wide enough for.

    python -m benchmarks.wire.synthetic_features features.npz --size 512 --images 1800 --sites 3 --seed 0
    python -m benchmarks.wire.synthetic_features hard.npz --hard --classes 3 --sites 2 --images 600

All embeddings lie in a narrow cone, as CLIP's do (Liang et al. 2022, "Mind the gap"). Within it an image is
its class's direction, mixed with another where it is ambiguous, plus its site's own shift and noise that is
much stronger in some coordinates than in others. The text embeddings see the class directions imperfectly,
from another part of the cone. So zero-shot is poor and an attention over the coordinates has much to learn.
With `--hard` the text embeddings know nothing of the class directions, and the noise is stronger: whatever a
head gets right it has learnt. They prove nothing about medical images.
"""

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_HARD_NOISE = 9.0


def main() -> None:
    """Write the file that `fedmedclip bench bandwidth --features` reads."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--size", type=int, default=512, help="values per embedding")
    parser.add_argument("--classes", type=int, default=8)
    parser.add_argument("--images", type=int, default=1800)
    parser.add_argument("--sites", type=int, default=3)
    parser.add_argument("--global-images", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--hard", action="store_true", help="texts that know nothing, and more noise")
    options = parser.parse_args()
    write_features(
        options.out,
        size=options.size,
        classes=options.classes,
        images=options.images,
        sites=options.sites,
        global_images=options.global_images,
        seed=options.seed,
        hard=options.hard,
    )


def write_features(
    path: Path,
    *,
    size: int,
    classes: int,
    images: int,
    sites: int,
    global_images: int,
    seed: int,
    hard: bool = False,
) -> None:
    """Draw images of `sites` sites with uneven classes, and of no site, and write them as `.npz`."""
    draw = np.random.default_rng(seed)
    cone = 2.0 * _unit(draw.normal(size=size))
    directions = _unit(draw.normal(size=(classes, size)))
    shifts = 0.3 * _unit(draw.normal(size=(sites + 1, size)))
    # Half of the noise is in a few per cent of the coordinates; CLIP has such outliers too.
    strength = (_HARD_NOISE if hard else 6.0) * draw.gamma(0.5, 2.0, size) / size**0.5

    site_of = draw.integers(0, sites, images)
    shares = draw.dirichlet(np.full(classes, 1.0), size=sites)
    labels = np.array([draw.choice(classes, p=shares[site]) for site in site_of])
    global_labels = draw.integers(0, classes, global_images)

    def embed(of_class: npt.NDArray[np.int64], shift: Floats) -> npt.NDArray[np.float32]:
        count = len(of_class)
        ambiguity = draw.uniform(0.0, 0.5, size=(count, 1))
        other = directions[draw.integers(0, classes, count)]
        meaning = (1 - ambiguity) * directions[of_class] + ambiguity * other
        noise = strength * draw.normal(size=(count, size))
        return _unit(cone + meaning + shift + noise).astype(np.float32)

    gap = _unit(draw.normal(size=size))
    known = 0.0 if hard else directions
    captions = _unit(cone + gap + known + 3.0 * _unit(draw.normal(size=(classes, size))))
    np.savez(
        path,
        embeddings=embed(labels, shifts[site_of]),
        labels=labels,
        sites=site_of,
        class_embeddings=captions.astype(np.float32),
        logit_scale=np.float32(50.0),
        global_embeddings=embed(global_labels, shifts[-1]),
        global_labels=global_labels,
    )


def _unit(vectors: Floats) -> Floats:
    unit: Floats = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    return unit


if __name__ == "__main__":
    main()
