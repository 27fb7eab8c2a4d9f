"""A site that has computed its features, as `fedmedclip site` leaves it."""

import pytest

from fedmedclip.edge_client.features.feature_store import FeatureStore
from fedmedclip.edge_client.features.labelled import load_site_features


@pytest.fixture
def site(tmp_path, class_folders, tiny_bundle):
    """A `site.toml` with state, split and feature store, and its features."""
    state = tmp_path / "state"
    with FeatureStore(state / "features.db") as store:
        features = load_site_features(class_folders, tiny_bundle, store, state / "split.csv", seed=1)
    configuration = tmp_path / "site.toml"
    configuration.write_text(
        f"""
        [site]
        federation = "trial"
        name = "site-a"
        bundle = "{tiny_bundle.folder}"
        data = "{class_folders.name}"
        state = "state"
        [images]
        strict = true
        [broker]
        host = "nowhere"
        """
    )
    return configuration, features
