"""A pool of features that trains in no time."""

import numpy as np
import pytest

from fedmedclip.simulation.federation.feature_pool import pool_of_file


@pytest.fixture(scope="session")
def pool_file(tmp_path_factory):
    """300 images of two overlapping classes at three sites, 16 values each."""
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 2, 300)
    captions = np.linalg.qr(draw.normal(size=(16, 2)))[0].T.astype(np.float32)
    path = tmp_path_factory.mktemp("pool") / "features.npz"
    embeddings = captions[labels] + 0.3 * draw.normal(size=(300, 16))
    np.savez(
        path, embeddings=embeddings.astype(np.float32), labels=labels, sites=np.arange(300) % 3,
        class_embeddings=captions, logit_scale=10.0,
    )  # fmt: skip
    return path


@pytest.fixture(scope="session")
def pool(pool_file):
    """Read the file."""
    return pool_of_file(pool_file)
