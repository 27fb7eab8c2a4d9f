"""Public spaces and sites to try releases on."""

import numpy as np
from hypothesis import strategies as st

from fedmedclip.edge_client.privacy.public_space import PublicSpace, space_of

CLASSES, SIZE = 3, 8


def unit_rows(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def example_space(seed: int = 0, images: int = 60) -> PublicSpace:
    """A space of made-up public images about the class embeddings."""
    draw = np.random.default_rng(seed)
    captions = unit_rows(draw.normal(size=(CLASSES, SIZE)))
    return space_of(example_images(images, seed, captions)[0], captions, 10.0)


def example_images(images: int, seed: int, captions: np.ndarray, noise: float = 0.2):
    """Images (N, D) about class embeddings, with their labels (N,)."""
    draw = np.random.default_rng(seed + 1)
    labels = np.arange(images) % len(captions)
    return unit_rows(captions[labels] + noise * draw.normal(size=(images, captions.shape[1]))), labels


@st.composite
def sites(draw, largest: int = 12):
    """Any site: rows of any direction and length up to 100, any labels, any patients."""
    images = draw(st.integers(1, largest))
    chance = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rows = unit_rows(chance.normal(size=(images, SIZE)))
    rows *= draw(st.sampled_from([1.0, 0.1, 100.0])) if draw(st.booleans()) else 1.0
    rows = np.concatenate([rows, rows[:1]])[-images:]
    labels = draw(st.lists(st.integers(0, CLASSES - 1), min_size=images, max_size=images))
    groups = draw(st.lists(st.integers(0, 3), min_size=images, max_size=images))
    return rows.astype(np.float32), np.array(labels, np.int64), np.array(groups, np.int64)
