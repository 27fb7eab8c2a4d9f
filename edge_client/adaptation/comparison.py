"""What the answers of heads are on the images that they were fitted to, beside zero-shot and as they came."""

import numpy as np
import numpy.typing as npt

from fedmedclip.edge_client.adaptation.findings import AdaptationFindings, Change, ClassShares, Labelled
from fedmedclip.edge_client.adaptation.place_images import PlaceImages
from fedmedclip.edge_client.heads.classification import predict
from fedmedclip.edge_client.heads.heads_file import Heads
from fedmedclip.edge_client.heads.scanner_offset import NOT_LABELLED, agreement
from fedmedclip.edge_client.learning.method import Adapted
from fedmedclip.protocol.bundle.bundle import Bundle
from fedmedclip.protocol.visible import visible

Floats = npt.NDArray[np.float32]


def compared(
    bundle: Bundle, heads: Heads, unlabelled: Heads, made: Adapted, place: PlaceImages
) -> AdaptationFindings:
    """Return what `heads` with the private head `made` answer for the images of a place.

    `unlabelled` are the heads that the same images give without labels, to which the labels are a test.
    """
    found = predict(heads, bundle, place.embeddings)
    answers = found.ensemble
    known = place.labels != NOT_LABELLED
    classes = [
        ClassShares(
            visible(name),
            _share(found.zero_shot, number),
            _share(found.shared, number),
            _share(answers, number),
            int((place.labels == number).sum()),
        )
        for number, name in enumerate(bundle.manifest.class_names)
    ]
    return AdaptationFindings(
        federation=visible(heads.federation),
        site=visible(heads.site),
        version=heads.version,
        method=heads.method,
        images=len(place.paths),
        copies=place.copies,
        skipped={visible(image.path): visible(image.reason) for image in place.skipped},
        answers=made.kept,
        reason=made.reason,
        classes=classes,
        changed_from_zero_shot=_change(answers, found.zero_shot),
        changed_from_federation=_change(answers, found.shared),
        separation=float(made.separation or 0.0),
        offset=float(made.offset or 0.0),
        confidence=float(answers.max(axis=1).mean()),
        zero_shot_confidence=float(found.zero_shot.max(axis=1).mean()),
        labelled=_labelled(bundle, unlabelled, place) if known.any() else None,
    )


def _labelled(bundle: Bundle, unlabelled: Heads, place: PlaceImages) -> Labelled:
    known = place.labels != NOT_LABELLED
    found, labels = predict(unlabelled, bundle, place.embeddings[known]), place.labels[known]
    right = (
        int((each.argmax(axis=1) == labels).sum()) for each in (found.zero_shot, found.shared, found.ensemble)
    )
    return Labelled(len(labels), *right)


def _share(probabilities: Floats, number: int) -> float:
    return float((probabilities.argmax(axis=1) == number).mean())


def _change(answers: Floats, others: Floats) -> Change:
    changed = int((answers.argmax(axis=1) != others.argmax(axis=1)).sum())
    return Change(changed, float(agreement(answers.astype(np.float64), others.astype(np.float64))))
