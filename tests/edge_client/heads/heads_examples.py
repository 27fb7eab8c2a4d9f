"""Heads and embeddings for tests: small, seeded, with a learnable pattern."""

from pathlib import Path

import numpy as np

from fedmedclip.edge_client.heads.assurance import DEFAULT_SETTINGS
from fedmedclip.edge_client.heads.assuring import GroupedImages, ReferenceImages, assured
from fedmedclip.edge_client.heads.heads import initial_private_head, unit_rows
from fedmedclip.protocol.bundle.bundle import Bundle, ClassPrompts, Manifest, Parity, Preprocessing
from fedmedclip.protocol.heads.shared_heads import initial_shared_head

SIZE, CLASSES, SCALE = 24, 4, 12.7


def example_heads(seed=0, size=SIZE, classes=CLASSES):
    """Heads with some rows dropped and batch-norm statistics that are not the initial ones."""
    generator = np.random.default_rng(seed)
    shared = initial_shared_head("fedmedclip", size, seed)
    private = initial_private_head("fedmedclip", size, classes, seed, "hospital_0")
    for name, array in (shared | private).items():
        if name.endswith("threshold"):
            array[:] = generator.choice([0.0, 0.05, 0.5], size=array.shape, p=[0.6, 0.2, 0.2])
            array[0] = -0.1
        elif "norm" in name:
            array[:] = generator.uniform(0.5, 1.5, size=array.shape)
    return shared, private


def example_data(count=64, seed=0, size=SIZE, classes=CLASSES, noise=0.15):
    """Unit embeddings near their class's embedding: float32 (N, D), int64 (N,), float32 (C, D)."""
    generator = np.random.default_rng(seed)
    class_embeddings = unit_rows(generator.normal(size=(classes, size)).astype(np.float32))
    labels = generator.integers(0, classes, size=count)
    offsets = noise * generator.normal(size=(count, size))
    embeddings = unit_rows((class_embeddings[labels] + offsets).astype(np.float32))
    return embeddings, labels, class_embeddings


def with_assurance(heads, bundle, settings=DEFAULT_SETTINGS, count=120):
    """Heads that say how far to rely on them, by images near the bundle's class embeddings."""
    classes, size = bundle.class_embeddings.shape
    generator = np.random.default_rng(5)
    labels = np.arange(count) % classes
    offsets = 0.15 * generator.normal(size=(count, size))
    images = GroupedImages.of((bundle.class_embeddings[labels] + offsets).astype(np.float32), labels)
    first = np.arange(count) < count // 2
    reference = ReferenceImages(images.chosen(first), classes)
    return assured(heads, bundle, images.chosen(~first), reference, settings)


def example_bundle(size=SIZE, classes=CLASSES, digest=b"\x11" * 32):
    """A bundle as opened from disk, without its files: heads only need its numbers."""
    names = [f"class_{index}" for index in range(classes)]
    manifest = Manifest(
        format=1,
        model="example",
        pretrained="",
        precision="fp32",
        embedding_size=size,
        logit_scale=SCALE,
        class_names=names,
        prompts=ClassPrompts(["a {}"], {name: [name] for name in names}),
        preprocessing=Preprocessing(
            8, 8, "shortest", "bicubic", 0, mean=(0.5, 0.5, 0.5), standard_deviation=(0.5, 0.5, 0.5)
        ),
        parity=Parity(1, 0, 0.0, 1.0, 1.0, 1e-4),
        versions={},
        files={},
    )
    return Bundle(Path("bundle"), manifest, example_data(classes=classes, size=size)[2], digest)
