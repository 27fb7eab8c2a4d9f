"""Three hospitals with images in groups, and images of no hospital."""

import numpy as np
import pytest

from fedmedclip.simulation.federation.feature_pool import pool_of_file
from fedmedclip.simulation.federation.source import features_of_pool
from fedmedclip.simulation.newcomer.study import Study


@pytest.fixture(scope="package")
def features_file(tmp_path_factory):
    """330 images of three classes, 16 values each, in pairs that look alike; class 2 is rare at site 0."""
    draw = np.random.default_rng(0)
    captions = np.linalg.qr(draw.normal(size=(16, 3)))[0].T.astype(np.float32)
    groups = np.repeat(np.arange(165), 2)
    sites, labels = groups % 3, groups // 3 % 3
    labels[(sites == 0) & (labels == 2) & (groups > 40)] = 1

    def embeddings(of):
        return (captions[of] + 0.4 * draw.normal(size=(len(of), 16))).astype(np.float32)

    elsewhere = draw.integers(0, 3, 20)
    path = tmp_path_factory.mktemp("newcomer") / "features.npz"
    np.savez(
        path, embeddings=embeddings(labels), labels=labels, sites=sites, groups=groups,
        class_embeddings=captions, logit_scale=10.0, global_embeddings=embeddings(elsewhere),
        global_labels=elsewhere,
    )  # fmt: skip
    return path


@pytest.fixture(scope="package")
def study(features_file):
    """Two rounds of a federation of them."""
    return Study(features_of_pool(pool_of_file(features_file)), "int8", 2)
