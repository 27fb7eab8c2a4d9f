"""How often prediction sets hold the true class: at home, at another member's, on scanners of no site.

The sets are counted as the thresholds make them, also where an image is unlike what was seen: that such an
image's set has all classes in the end must not make coverage look better than it is.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import product
from typing import Any

import numpy as np

from benchmarks.assurance.federations import Federation
from benchmarks.assurance.shares import Share
from fedmedclip.edge_client.heads.assurance import AssuranceSettings
from fedmedclip.edge_client.heads.assuring import GroupedImages, ReferenceImages, assured
from fedmedclip.edge_client.heads.classification import answer
from fedmedclip.edge_client.heads.heads_file import Heads
from fedmedclip.edge_client.learning.own_folds import fold_of_groups
from fedmedclip.protocol.bundle.bundle import Bundle

LEVELS = (0.8, 0.9, 0.95)
OWN, OTHERS, ELSEWHERE, AFRESH = (
    "own test",
    "other members' tests",
    "global test",
    "global test, calibrated there",
)


def coverage(
    federations: Iterable[Federation], bundle: Bundle, elsewhere: GroupedImages
) -> list[dict[str, Any]]:
    """Return a row for each method, way to make sets, and place: coverage, worst class, classes in a set."""
    found: dict[tuple[Any, ...], tuple[Share, Share, dict[int, Share]]] = defaultdict(
        lambda: (Share(), Share(), defaultdict(Share))
    )
    for federation in federations:
        for level, kind, by_class in product(LEVELS, ("lac", "aps"), (False, True)):
            settings = AssuranceSettings(level, kind, by_class)  # type: ignore[arg-type]
            for place, heads, images in _trials(federation, bundle, elsewhere, settings):
                assert heads.assurance is not None
                sets = heads.assurance.sets(answer(heads, bundle, images.embeddings)[0])
                held = sets[np.arange(len(sets)), images.labels]
                all_held, sizes, of_class = found[federation.method, level, kind, by_class, place]
                all_held.add(held, images.groups)
                sizes.add(sets.sum(axis=1), images.groups)
                for label in np.unique(images.labels).tolist():
                    chosen = images.labels == label
                    of_class[label].add(held[chosen], images.groups[chosen])
    names = ("method", "level", "kind", "class_conditional", "place")
    return [
        dict(zip(names, key, strict=True))
        | {
            "coverage": held.as_dict(),
            "set_size": sizes.as_dict(),
            "worst_class": round(min(share.mean for share in of_class.values()), 4),
        }
        for key, (held, sizes, of_class) in found.items()
    ]


def _trials(
    federation: Federation, bundle: Bundle, elsewhere: GroupedImages, settings: AssuranceSettings
) -> Iterator[tuple[str, Heads, GroupedImages]]:
    for member in federation.members:
        heads = member.assured(bundle, settings)
        yield OWN, heads, member.test
        yield ELSEWHERE, heads, elsewhere
        for other in federation.members:
            if other is not member:
                yield OTHERS, heads, other.test
    # A clinic of no site: the shared head alone, calibrated on half of its patients, tried on the others.
    half = fold_of_groups(elsewhere.groups, 2, federation.seed) == 0
    for chosen in (half, ~half):
        own = elsewhere.chosen(chosen)
        reference = ReferenceImages(own, len(bundle.class_embeddings))
        yield AFRESH, assured(federation.shared, bundle, own, reference, settings), elsewhere.chosen(~chosen)
