"""Data on which constants were chosen is known wherever it lies."""

from dataclasses import replace

import numpy as np

from fedmedclip.simulation.federation import known_data
from fedmedclip.simulation.federation.feature_pool import FeaturePool
from fedmedclip.simulation.federation.known_data import chosen_on, name_of_data, site_digest
from fedmedclip.simulation.phantoms.anatomy import FINDINGS

POOL = FeaturePool(
    np.eye(4, dtype=np.float32),
    np.arange(4),
    tuple(bytes([number]) * 32 for number in range(4)),
    np.array([0, 1, 0, 1]),
    np.arange(4),
    ("a", "b"),
    np.eye(4, dtype=np.float32),
    10.0,
    None,
)


def test_phantoms_are_told_by_their_classes_and_others_by_the_images_of_a_site(monkeypatch):
    names = ("w", "x", "y", "z")
    assert name_of_data(POOL, FINDINGS[::-1]) == "phantoms"
    assert name_of_data(POOL, names) == ""

    monkeypatch.setitem(known_data._KNOWN_SITES, site_digest(POOL, 1), "m")
    assert name_of_data(POOL, names) == "m"
    elsewhere = replace(POOL, sites=np.array([1, 0, 1, 0]), site_names=("c", "d"))
    assert name_of_data(elsewhere, names) == "m"


def test_what_trains_with_default_settings_has_them_from_somewhere():
    assert chosen_on("zero-shot") == ()
    assert "brain_tumor" in chosen_on("fedmedclip")
