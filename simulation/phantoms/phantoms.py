"""A federation of hospitals with made-up images: brain-like phantoms with four findings.

folder/hospital_0/ring_lesion/0000.png ...    three hospitals, each with its own scanner look and labels
folder/global_test/...                        images of a scanner that no hospital has
folder/server_reference/...                   a small balanced set for the aggregator's side
folder/classes.toml                           the prompts of each class
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from fedmedclip.protocol.seeds import derive_seed
from fedmedclip.simulation.phantoms.anatomy import FINDINGS, render_phantom
from fedmedclip.simulation.phantoms.captions import PROMPT_PHRASES, PROMPT_TEMPLATES
from fedmedclip.simulation.phantoms.looks import (
    GLOBAL_TEST_LOOK,
    HOSPITAL_LOOKS,
    SERVER_REFERENCE_LOOK,
    Look,
    vary,
)

LEAST_PER_CLASS = 10
PHANTOM_CLIP = Path(__file__).parents[1] / "assets" / "phantom-clip"
"""The small CLIP that knows these images, as open_clip reads it."""


@dataclass(frozen=True)
class PhantomSite:
    """One folder of images: how many of each finding, in the order of `FINDINGS`, and how they look."""

    name: str
    look: Look
    counts: tuple[int, int, int, int]
    suffix: str = ".png"


# What one hospital sees often, another hardly sees: each private head has something of its own to learn.
SITES = (
    PhantomSite("hospital_0", HOSPITAL_LOOKS[0], (20, 200, 200, 25)),
    PhantomSite("hospital_1", HOSPITAL_LOOKS[1], (220, 20, 25, 180), suffix=".jpg"),
    PhantomSite("hospital_2", HOSPITAL_LOOKS[2], (150, 60, 30, 200)),
    PhantomSite("global_test", GLOBAL_TEST_LOOK, (50, 50, 50, 50)),
    PhantomSite("server_reference", SERVER_REFERENCE_LOOK, (20, 20, 20, 20)),
)


def write_federation(
    folder: Path,
    seed: int,
    *,
    scale: float = 1.0,
    on_image: Callable[[int, int], None] | None = None,
) -> None:
    """Write the images of `SITES` and `classes.toml` into `folder`, which is made if need be.

    The same seed and scale give the same bytes. `scale` multiplies every count, but a class never has fewer
    than 10 images at a site. `on_image` is called with (images written, images in all) after each image.
    """
    plan = [
        (site, finding, index)
        for site in SITES
        for finding, count in zip(FINDINGS, site.counts, strict=True)
        for index in range(max(LEAST_PER_CLASS, round(count * scale)))
    ]
    for written, (site, finding, index) in enumerate(plan, start=1):
        path = folder / site.name / finding / f"{index:04d}{site.suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_image(
            path, site, finding, derive_seed(seed, purpose=f"phantom {finding} {index}", site=site.name)
        )
        if on_image is not None:
            on_image(written, len(plan))
    (folder / "classes.toml").write_text(classes_toml(), encoding="utf-8")


def classes_toml() -> str:
    """Return the text of `classes.toml`: the prompt templates, and the phrases of each finding."""
    templates = "".join(f'  "{template}",\n' for template in PROMPT_TEMPLATES)
    phrases = "".join(
        f"{finding} = [" + ", ".join(f'"{phrase}"' for phrase in PROMPT_PHRASES[finding]) + "]\n"
        for finding in FINDINGS
    )
    return (
        "# Prompts for each class folder; {} in a template is replaced by each phrase, "
        f"and the unit embeddings are averaged.\ntemplates = [\n{templates}]\n\n[classes]\n{phrases}"
    )


def _write_image(path: Path, site: PhantomSite, finding: str, seed: int) -> None:
    generator = np.random.default_rng(seed)
    picture = Image.fromarray(render_phantom(finding, vary(site.look, generator), generator))
    if site.suffix == ".jpg":
        picture.save(path, quality=90)
    else:
        picture.save(path, compress_level=1)
