"""A federation of one other hospital, and scans of a place whose scanner is redder."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from fedmedclip.command import app
from fedmedclip.edge_client.features.encoder import Encoder
from fedmedclip.edge_client.heads.heads_file import Heads, save_heads
from fedmedclip.edge_client.learning.methods.one_message import shared_statistics
from fedmedclip.edge_client.learning.own_images import OwnImages
from fedmedclip.protocol.bundle.bundle import Bundle
from fedmedclip.protocol.bundle.signature import sign_bundle
from fedmedclip.protocol.heads.shared_heads import initial_shared_head
from fedmedclip.protocol.signature import SigningKey, new_signing_key
from fedmedclip.protocol.trust.pins import pin
from tests.edge_client.conftest import CLASS_NAMES, HEIGHT, WIDTH, random_pixels, write_tiny_bundle

PER_CLASS = 12


@dataclass(frozen=True)
class Place:
    """Scans CLASS-NUMBER.png of a place in a flat folder, and the heads of a federation without it."""

    scans: Path
    heads: Path
    bundle: Bundle
    centre: SigningKey


def scans_of(seed, per_class, contrast=0.5, redder=0):
    """Images uint8 (3 * per_class, height, width, 3), one class after the other: patterns with noise."""
    generator = np.random.default_rng(seed)
    patterns = [random_pixels(1000 + number, HEIGHT, WIDTH) for number in range(len(CLASS_NAMES))]
    noise = generator.normal(0, 12, (len(patterns), per_class, 3, 4, 3))
    noise = np.kron(noise, np.ones((1, 1, HEIGHT // 3, WIDTH // 4, 1)))
    images = np.stack(patterns)[:, None] * contrast + 60 + noise + np.array([redder, 0, 0])
    return np.clip(images, 0, 255).astype(np.uint8).reshape(-1, HEIGHT, WIDTH, 3)


def statistics_of(bundle, images):
    """Return the shared head of a federation with these images alone."""
    labels = np.repeat(np.arange(len(CLASS_NAMES)), len(images) // len(CLASS_NAMES))
    with Encoder(bundle) as encoder:
        own = OwnImages.of(encoder.encode(images), labels)
    zero = initial_shared_head("one-message", bundle.manifest.embedding_size, 0, len(CLASS_NAMES))
    return shared_statistics(zero, own, bundle.class_embeddings, bundle.manifest.logit_scale, 0)


@pytest.fixture(scope="session")
def untrusted_place(tmp_path_factory):
    """Return a place that the federation does not know. Not to be changed."""
    folder = tmp_path_factory.mktemp("place")
    bundle, centre = write_tiny_bundle(folder / "bundle"), new_signing_key()
    sign_bundle(bundle.folder, centre)
    shared = statistics_of(bundle, scans_of(1, 40))
    save_heads(folder / "clinic.heads", Heads("one-message", shared, None, "trial", "", 2), bundle, centre)
    write_scans(folder / "scans", scans_of(2, PER_CLASS, redder=60))
    return Place(folder / "scans", folder / "clinic.heads", bundle, centre)


@pytest.fixture
def place(untrusted_place, monkeypatch):
    """Return the place, whose user trusts the centre."""
    monkeypatch.delenv("FEDMEDCLIP_INSECURE")
    pin(untrusted_place.centre.public_key, "the centre")
    return untrusted_place


def write_scans(folder, images):
    """Write images as CLASS-NUMBER.png."""
    folder.mkdir()
    for number, image in enumerate(images):
        name = CLASS_NAMES[number * len(CLASS_NAMES) // len(images)]
        Image.fromarray(image).save(folder / f"{name}-{number:03}.png")


@pytest.fixture
def adapt(untrusted_place):
    """Return a function that runs `fedmedclip adapt` on the place's scans, or on other images."""

    def run(*options, images=None, heads=None):
        place = untrusted_place
        arguments = ["adapt", images or place.scans, "-b", place.bundle.folder, "-H", heads or place.heads]
        result = CliRunner().invoke(app, [str(part) for part in [*arguments, *options]])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.stdout

    return run
