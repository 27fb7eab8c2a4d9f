"""The watch beside the worker: heads that change while images are in hand."""

from types import SimpleNamespace

import numpy as np

from fedmedclip.edge_client.serving.answer import Result
from fedmedclip.edge_client.serving.drift.noting import DriftNotes, drift_report
from fedmedclip.edge_client.serving.drift.watch import DriftWatch

WORK = SimpleNamespace(id="0" * 32)


def classifier(bundle="b" * 64):
    return SimpleNamespace(
        heads=None, class_names=("mass", "none"), provenance=SimpleNamespace(bundle=bundle)
    )


def test_an_image_of_the_heads_before_does_not_bring_them_back(tmp_path):
    watch = DriftWatch(tmp_path)
    notes, old, new = DriftNotes(watch), classifier("a" * 64), classifier()
    image, result = np.ones(4, np.float32), Result(outcome="answered", label="mass")
    for answering in (old, new, old, new):
        notes(answering, image, result, WORK)
    watch.save_now()
    report = drift_report(tmp_path, "b" * 64, None)
    assert report.images == 2
    assert report.lines()[1] == "  2 images on 1 days"
