"""The watch beside the service's worker, and what it has found for who asks from outside."""

from pathlib import Path
from threading import Lock

import numpy as np
import numpy.typing as npt

from fedmedclip.edge_client.inference.classifier import Classifier
from fedmedclip.edge_client.serving.answer import Result
from fedmedclip.edge_client.serving.drift.reference import DriftReference, reference_of
from fedmedclip.edge_client.serving.drift.report import DriftReport
from fedmedclip.edge_client.serving.drift.watch import DriftWatch
from fedmedclip.edge_client.serving.queue import Work


class DriftNotes:
    """Tells a watch of each image that is answered, and of the heads that answer now. For several threads."""

    def __init__(self, watch: DriftWatch) -> None:
        self._watch = watch
        self._lock = Lock()
        self._now: Classifier | None = None
        self._before: Classifier | None = None

    def __call__(
        self, classifier: Classifier, embedding: npt.NDArray[np.float32], result: Result, work: Work
    ) -> None:
        """Take in one answered image: its embedding (D,) and its result."""
        with self._lock:
            if classifier is not self._now:
                if classifier is self._before:
                    # It was in hand when the heads changed: what they said no longer counts.
                    return
                self._before, self._now = self._now, classifier
                reference = reference_of(classifier.heads, classifier.class_names)
                self._watch.follow(classifier.provenance.bundle, reference)
            self._watch.note(work.id, embedding, result)


def drift_report(state_folder: Path, bundle: str, reference: DriftReference | None) -> DriftReport:
    """Return how this month stands, by what the service saved last: `bundle` is the digest of its bundle.

    Raises OSError where that cannot be read.
    """
    watch = DriftWatch(state_folder)
    watch.follow(bundle, reference)
    return watch.report()
