"""Is a new version worse than the one that answers now? Paired tests by group, and a look at recent images.

A version is worse when its balanced accuracy on the validation split is lower by more than is tolerated; when
one of the paired tests shows a loss of accuracy, of calibration (by the Brier score), or of the sensitivity
for one class; or when it answers too many recent images otherwise. Holm's correction over all tests of a
comparison bounds the chance that a version without any difference is called worse by them. What such tests
can see of few images: `docs/how-to/versions.md`.
"""

import numpy as np
import numpy.typing as npt

from fedmedclip.edge_client.heads.assuring import GroupedImages
from fedmedclip.edge_client.heads.classification import answer
from fedmedclip.edge_client.heads.heads_file import Heads
from fedmedclip.edge_client.heads.paired_tests import (
    exact_chance_of_loss,
    gains_by_group,
    holm_adjusted,
    random_chance_of_loss,
)
from fedmedclip.edge_client.versions.figures import Labels, Probabilities, brier_scores
from fedmedclip.edge_client.versions.records import Comparison, PairedTest, Shadow
from fedmedclip.edge_client.versions.rule import ActivationRule
from fedmedclip.protocol.bundle.bundle import Bundle

Floats = npt.NDArray[np.float64]

LEAST_RECENT_IMAGES = 30
"""With fewer recent images the share of changed answers says too little."""
_SEED = 16
"""Of the random signings: the same comparison gives the same p-values."""
_BRIER = "Brier score"
_ROUNDING = 1e-9


def compare(
    newer: Heads,
    active: Heads,
    against: str,
    bundle: Bundle,
    validation: GroupedImages,
    recent: npt.NDArray[np.float32],
    rule: ActivationRule,
) -> Comparison:
    """Compare what both answer, zero-shot where that answers in a version's place.

    Both are judged on `validation`. `against` is the active one's name, `recent` has embeddings (N, D) of
    images without labels.
    """
    tests: list[PairedTest] = []
    gain = None
    labels, groups = validation.labels, validation.groups
    if len(labels):
        before, after = (answer(heads, bundle, validation.embeddings)[0] for heads in (active, newer))
        names = bundle.manifest.class_names
        tests = paired_tests(after, before, labels, groups, names)
        gain = exact_chance_of_loss(-gains_by_group(_gains(after, before, labels), groups))
    comparison = Comparison(
        against=against,
        images=len(labels),
        balanced_accuracy=None if newer.judgement is None else newer.judgement.heads,
        before=None if active.judgement is None else active.judgement.heads,
        tolerated_loss=rule.tolerated_loss,
        significance=rule.significance,
        tolerated_changes=rule.tolerated_changes,
        tests=tests,
        gain=gain,
        shadow=shadow_of(newer, active, bundle, recent),
        worse=[],
    )
    comparison.worse.extend(_worse(comparison, untrained=active.version == 0))
    return comparison


def paired_tests(
    after: Probabilities, before: Probabilities, labels: Labels, groups: Labels, names: list[str]
) -> list[PairedTest]:
    """Return the tests of whether probabilities `after` (N, C) lose against those `before`, of images with
    labels (N,) and groups (N,), corrected over all of them.
    """
    gains = _gains(after, before, labels)
    of_groups = {"accuracy": gains_by_group(gains, groups)}
    brier = gains_by_group(brier_scores(before, labels) - brier_scores(after, labels), groups)
    for place in np.unique(labels):
        those = labels == place
        of_groups[f"sensitivity for {names[place]}"] = gains_by_group(gains[those], groups[those])
    found = {of: (exact_chance_of_loss(sums), sums) for of, sums in of_groups.items()}
    found[_BRIER] = (random_chance_of_loss(brier, _SEED), brier)
    corrected = holm_adjusted([p for p, _ in found.values()])
    return [
        PairedTest(of, int((sums > 0).sum()), int((sums < 0).sum()), len(sums), p, after_holm)
        for (of, (p, sums)), after_holm in zip(found.items(), corrected, strict=True)
    ]


def shadow_of(newer: Heads, active: Heads, bundle: Bundle, recent: npt.NDArray[np.float32]) -> Shadow | None:
    """Return how many answers to recent images (N, D) change; None where they are too few to tell."""
    if len(recent) < LEAST_RECENT_IMAGES:
        return None
    before, after = (answer(heads, bundle, recent)[0].argmax(axis=1) for heads in (active, newer))
    return Shadow(len(recent), int((before != after).sum()))


def _gains(after: Probabilities, before: Probabilities, labels: Labels) -> Floats:
    """Return for each image 1 where it is right now and was wrong, -1 where it was right, else 0."""
    right, was_right = (found.argmax(axis=1) == labels for found in (after, before))
    gains: Floats = right.astype(np.float64) - was_right.astype(np.float64)
    return gains


def _worse(found: Comparison, *, untrained: bool) -> list[str]:
    """Return in words what speaks against the newer version."""
    words = []
    if found.balanced_accuracy is not None and found.before is not None:
        loss = found.before - found.balanced_accuracy
        if loss > found.tolerated_loss + _ROUNDING:
            words.append(
                f"balanced accuracy {found.balanced_accuracy:.3f} on the {found.images} images of the "
                f"validation split, before {found.before:.3f}"
            )
    words += [
        f"{test.of} (better for {test.better} groups, worse for {test.worse} of {test.groups}; "
        f"p {test.p_corrected:.2g})"
        for test in found.tests
        if test.p_corrected <= found.significance
    ]
    # Who is right more often answers otherwise, and what has learnt nothing is no measure of that.
    shown_better = untrained or (found.gain is not None and found.gain <= found.significance)
    if found.shadow is not None and found.shadow.share > found.tolerated_changes and not shown_better:
        words.append(
            f"other answers to {found.shadow.changed} of {found.shadow.images} recent images, tolerated "
            f"{found.tolerated_changes:.0%}"
        )
    return words
