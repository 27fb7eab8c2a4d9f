"""The generated image-caption pairs that the demo's small CLIP is pretrained on."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fedmedclip.simulation.phantoms.anatomy import FINDINGS, render_phantom
from fedmedclip.simulation.phantoms.captions import Report, draw_caption, draw_report
from fedmedclip.simulation.phantoms.looks import WEIGHTINGS, draw_pretraining_look

SIDE = 96
MEAN, DEVIATION = 0.25, 0.25


@dataclass(frozen=True)
class PairsRecipe:
    """Which pairs there are. Shares per weighting are in the order of `WEIGHTINGS`."""

    images: int = 6000
    weighting_shares: tuple[float, float, float] = (0.5, 0.25, 0.25)
    misread_shares: tuple[float, float, float] = (0.6, 0.65, 0.7)
    vague_share: float = 0.25
    weighted_share: float = 0.3
    batch: int = 64
    captions: int = 24
    """Captions in a batch: fewer than images, for the captions of a batch repeat one another."""


@dataclass(frozen=True)
class Examples:
    """N images (N, 96, 96) uint8, what they show (N,) as indices into `FINDINGS`, and their reports."""

    pictures: Tensor
    findings: Tensor
    reports: list[Report]


@dataclass(frozen=True)
class Batch:
    """B images and C captions with what they are trained towards."""

    pixels: Tensor
    """(B, 3, 96, 96) float32, normalised, channels last in memory."""
    findings: Tensor
    """(B,) indices into `FINDINGS`: what the images really show."""
    texts: list[str]
    fits: Tensor
    """(B, C) bool: whether a caption could stand in an image's report."""


def render_examples(
    recipe: PairsRecipe, generator: np.random.Generator, advance: Callable[[], None]
) -> Examples:
    """Return the images of pretraining with a report each; `advance` is called after every image."""
    pictures, findings, reports = [], [], []
    for index in range(recipe.images):
        finding = index % len(FINDINGS)
        kind = int(generator.choice(len(WEIGHTINGS), p=recipe.weighting_shares))
        look = draw_pretraining_look(WEIGHTINGS[kind], generator)
        pictures.append(_resize_and_crop(Image.fromarray(render_phantom(FINDINGS[finding], look, generator))))
        findings.append(finding)
        reports.append(
            draw_report(FINDINGS[finding], WEIGHTINGS[kind], recipe.misread_shares[kind], generator)
        )
        advance()
    return Examples(torch.from_numpy(np.stack(pictures)), torch.tensor(findings), reports)


def draw_batch(examples: Examples, recipe: PairsRecipe, generator: np.random.Generator) -> Batch:
    """Return random examples, half of them mirrored, and captions from the reports of the first of them."""
    chosen = generator.integers(len(examples.reports), size=recipe.batch)
    reports = [examples.reports[index] for index in chosen]
    captions = [
        draw_caption(report, recipe.vague_share, recipe.weighted_share, generator)
        for report in reports[: recipe.captions]
    ]
    pictures = examples.pictures[torch.from_numpy(chosen)]
    mirrored = torch.from_numpy(generator.random(recipe.batch) < 0.5)
    pictures = torch.where(mirrored[:, None, None], pictures.flip(-1), pictures)
    pixels = ((pictures.float() / 255 - MEAN) / DEVIATION)[:, None].expand(-1, 3, -1, -1)
    return Batch(
        pixels=pixels.contiguous(memory_format=torch.channels_last),
        findings=examples.findings[torch.from_numpy(chosen)],
        texts=[caption.text for caption in captions],
        fits=torch.tensor([[caption.fits(report) for caption in captions] for report in reports]),
    )


def _resize_and_crop(picture: Image.Image) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Return the middle square, 96 pixels a side, as the shipped preprocessing will cut it."""
    scale = SIDE / min(picture.size)
    # Truncated, not rounded, as torchvision computes the longer side.
    width, height = (int(side * scale) for side in picture.size)
    left, top = (width - SIDE) // 2, (height - SIDE) // 2
    resized = picture.resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(resized.crop((left, top, left + SIDE, top + SIDE)))
