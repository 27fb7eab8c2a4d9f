"""Data that nobody chose whitened-memory's numbers on, and federations of it, without a broker.

The digits, tumours and wines of scikit-learn behind a random encoder, and Gaussians. Captions are right, half
right, drawn at random, or another class's.
"""

from functools import cache, partial
from itertools import pairwise

import numpy as np
from sklearn.datasets import load_breast_cancer, load_digits, load_wine

from fedmedclip.aggregator.rules.names import rule_for
from fedmedclip.aggregator.rules.rule import in_memory
from fedmedclip.edge_client.heads.heads import predict_probabilities
from fedmedclip.edge_client.heads.layers import unit_rows
from fedmedclip.edge_client.heads.whitening import SHRINKAGES, axes_of
from fedmedclip.edge_client.learning.settings import TrainingSettings
from fedmedclip.edge_client.learning.training import train_round
from fedmedclip.protocol.codecs import delta_codec_named
from fedmedclip.protocol.codecs.error_feedback import apply_delta, change_to_send, compress
from fedmedclip.protocol.heads.shared_heads import initial_shared_head, shared_head_specification

METHOD = "whitened-memory"
SIZE = 96
KINDS = ["right", "half right", "random", "another's"]


@cache
def gaussians():
    generator = np.random.default_rng(5)
    labels = generator.integers(0, 4, 1200)
    means, mixing = 0.3 * generator.normal(size=(4, 60)), generator.normal(size=(60, 60)) / 8
    return means[labels] + generator.normal(size=(1200, 60)) * np.linspace(2, 0.1, 60) @ mixing, labels


DATA = {
    "digits": partial(load_digits, return_X_y=True),
    "tumours": partial(load_breast_cancer, return_X_y=True),
    "wines": partial(load_wine, return_X_y=True),
    "gaussians": gaussians,
}


@cache
def embedded(name):
    """Unit embeddings (N, SIZE) in a cone, as CLIP's are, in random order, and labels."""
    rows, labels = DATA[name]()
    generator = np.random.default_rng(7)
    order = generator.permutation(len(labels))
    rows = (rows - rows.mean(axis=0)) / (rows.std(axis=0) + 1e-9)
    weights = generator.normal(size=(rows.shape[1], SIZE)) / np.sqrt(rows.shape[1])
    return unit_rows((np.tanh(rows @ weights) + 0.3).astype(np.float32))[order], labels[order].astype(
        np.int64
    )


def captions_of(name, kind):
    embeddings, labels = embedded(name)
    means = np.stack([embeddings[labels == label].mean(axis=0) for label in range(labels.max() + 1)])
    centre = means.mean(axis=0)
    offsets = means - centre
    noise = np.random.default_rng(3).normal(size=means.shape)
    noise *= np.linalg.norm(offsets) / np.linalg.norm(noise)
    chosen = {
        "right": offsets,
        "half right": offsets + 2 * noise,
        "random": noise,
        "another's": np.roll(offsets, 1, axis=0),
    }
    return unit_rows((centre / 2 + chosen[kind]).astype(np.float32))


def federation(sites, captions, scale, rounds=3, codec="lossless"):
    """Return the head after some rounds of production training, codec and default rule at (X, y) sites."""
    classes, size = captions.shape
    specification = shared_head_specification(METHOD, size, classes)
    aggregate, codec = rule_for(METHOD, None), delta_codec_named(codec)
    head, owed = initial_shared_head(METHOD, size, 0, classes), [(None, b"")] * len(sites)
    down, down_memory = None, b""
    for number in range(1, rounds + 1):
        updates = []
        for place, (embeddings, labels) in enumerate(sites):
            trained = train_round(
                METHOD, head, {}, embeddings, labels, captions, scale, TrainingSettings(),
                round_number=number, seed=place,
            )  # fmt: skip
            residual, memory = owed[place]
            change = change_to_send(METHOD, trained.shared, head, residual, specification)
            sent = compress(codec, change, residual, memory, specification)
            owed[place] = sent.residual, sent.memory
            updates.append(in_memory(f"site-{place}", float(len(labels)), sent.decoded))
        made = compress(codec, aggregate(updates, specification).delta, down, down_memory, specification)
        down, down_memory = made.residual, made.memory
        head = apply_delta(head, made.decoded, specification)
    return head


def accuracies(head, embeddings, labels, captions, scale):
    """Return the accuracy of the shared head and of zero-shot."""
    found = predict_probabilities(METHOD, head, None, embeddings, captions, scale)
    return [float((part.argmax(axis=1) == labels).mean()) for part in (found.shared, found.zero_shot)]


def of_discriminants(head, embeddings, labels):
    """Return the accuracy of the plain linear discriminant of the head's statistics, for each shrinkage."""
    found = []
    for shrinkage in SHRINKAGES:
        space = axes_of(head).whitening(shrinkage)
        nearness = space.apply(embeddings) @ space.prototypes.T - (space.prototypes**2).sum(axis=1) / 2
        found.append(float((nearness.argmax(axis=1) == labels).mean()))
    return found


def dealt(name, sizes, start=0):
    embeddings, labels = embedded(name)
    ends = start + np.cumsum([0, *sizes])
    return [(embeddings[a:b], labels[a:b]) for a, b in pairwise(ends)]


def remaining(name, seen):
    embeddings, labels = embedded(name)
    return embeddings[seen:], labels[seen:]
