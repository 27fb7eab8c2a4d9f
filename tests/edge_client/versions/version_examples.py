"""Small heads and versions for tests."""

import numpy as np

from fedmedclip.edge_client.heads.heads_file import Heads, encoded_heads
from fedmedclip.edge_client.versions.records import VersionRecord
from fedmedclip.edge_client.versions.versions import Versions
from tests.edge_client.heads.heads_examples import CLASSES, example_bundle, example_data

BUNDLE = example_bundle()
EMBEDDINGS, _as_captioned, _ = example_data(60, noise=0.35)
SWAPPED = np.array([1, 0, 2, 3])
# Zero-shot takes two classes for each other.
LABELS = SWAPPED[_as_captioned]
CAPTIONS = BUNDLE.class_embeddings
BEST = CAPTIONS[SWAPPED]


def shared(weight):
    return {"classifier.weight": weight.astype(np.float32), "classifier.bias": np.zeros(CLASSES, np.float32)}


def heads(version, weight=BEST):
    return Heads("linear-probe", shared(weight), None, "trial", "site-a", version)


def content(version):
    return encoded_heads(heads(version), BUNDLE)


def record(version, run=1):
    return VersionRecord(
        0, run, version, "", 0.0, "linear-probe", BUNDLE.digest.hex(), "", "", 0, "activated", "", "rule", 0.0
    )


def keep(state, *numbers, run=1):
    """Versions of which each was active in turn."""
    versions = Versions(state)
    for version in numbers:
        with versions.held() as held:
            held.activate(held.put(record(version, run), content(version)))
    return versions


def check(state):
    """Nothing is lost, half written, or at odds, once somebody looked."""
    versions = Versions(state)
    versions.look()
    active, listing = versions.active(), versions.listing()
    assert versions.faults() == {}
    if active is not None:
        answering = (state / "heads.safetensors").read_bytes()
        assert answering == (state / "versions" / active.file).read_bytes()
    files = {path.name for path in (state / "versions").iterdir()}
    assert files == {found.file for found in listing} | {"lock", "versions.json"}
    # One that the next version replaces.
    assert len(list(state.glob(".*.partial"))) <= 1
    return None if active is None else active.version
