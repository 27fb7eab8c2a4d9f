"""What is called unlike what was seen: the sites' own, others', other scanners', and what is none of it."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.assurance.federations import Federation
from benchmarks.assurance.shares import Share
from fedmedclip.edge_client.heads.assurance import DEFAULT_SETTINGS
from fedmedclip.edge_client.heads.assuring import GroupedImages
from fedmedclip.edge_client.heads.layers import unit_rows
from fedmedclip.edge_client.heads.novelty import Seen, Spread
from fedmedclip.edge_client.heads.whitening import statistics
from fedmedclip.protocol.bundle.bundle import Bundle

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Outsiders = Mapping[str, Floats]

_SHRINKAGES = (0.01, 0.03, 0.1, 0.3, 1.0)
_NEIGHBOURS = (1, 5)


def called_unlike(
    federations: Iterable[Federation], bundle: Bundle, elsewhere: GroupedImages, outsiders: Outsiders
) -> list[dict[str, Any]]:
    """Return a row for each method and kind of image: the share called unlike, and AUROC beside own tests."""
    shares: dict[tuple[str, str], Share] = defaultdict(Share)
    areas: dict[tuple[str, str], list[float]] = defaultdict(list)
    for federation in federations:
        for member in federation.members:
            assurance = member.assured(bundle, DEFAULT_SETTINGS).assurance
            assert assurance is not None
            own = assurance.distances(member.test.embeddings)
            if own is None:
                continue
            kinds = {"own test": member.test, "global test": elsewhere}
            kinds |= {
                kind: GroupedImages.of(found, np.zeros(len(found), int)) for kind, found in outsiders.items()
            }
            for kind, images in kinds.items():
                found = assurance.distances(images.embeddings)
                assert found is not None
                shares[federation.method, kind].add(found > 1, images.groups)
                areas[federation.method, kind].append(area(own, found))
    return [
        {
            "method": method,
            "kind": kind,
            "unlike": share.as_dict(),
            "auroc": round(float(np.mean(areas[method, kind])), 4),
        }
        for (method, kind), share in shares.items()
    ]


def candidates(federations: Iterable[Federation], outsiders: Outsiders, classes: int) -> list[dict[str, Any]]:
    """Return AUROCs of ways to tell outsiders, by statistics of the site or of all, of one method's sites."""
    areas: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for federation in federations:
        everyone = _joined([member.train for member in federation.members])
        for member in federation.members:
            for whose, images in (("site", member.train), ("federation", everyone)):
                for name, score in _scores(images, classes).items():
                    own = score(member.test.embeddings)
                    for kind, embeddings in outsiders.items():
                        areas[name, whose][kind].append(area(own, score(embeddings)))
    rows = []
    for (name, whose), by_kind in areas.items():
        means = {kind: float(np.mean(found)) for kind, found in by_kind.items()}
        mean = float(np.mean(list(means.values())))
        rows.append(
            {"score": name, "statistics": whose, "mean": round(mean, 4)}
            | {kind: round(value, 4) for kind, value in means.items()}
        )
    return rows


def area(inside: Doubles, outside: Doubles) -> float:
    """Return the chance that an outsider lies farther away than one of the site's own, ties counting half."""
    order = np.sort(inside)
    below = np.searchsorted(order, outside, side="left") + np.searchsorted(order, outside, side="right")
    return float(below.mean() / (2 * len(inside)))


def _scores(images: GroupedImages, classes: int) -> dict[str, Callable[[Floats], Doubles]]:
    rows = unit_rows(images.embeddings)
    sums = statistics(rows, images.labels, classes)
    present = sums["class_shares"] > 0
    means = (sums["class_sums"][present] / sums["class_shares"][present, None]).astype(np.float32)
    within = Spread.of(sums["scatter"].astype(np.float64), float(sums["spread"][0]))
    centre = rows.mean(axis=0, keepdims=True)
    centred = (rows - centre).astype(np.float64)
    total = Spread.of(centred.T @ centred / len(rows), float((centred**2).sum() / len(rows)))
    found: dict[str, Callable[[Floats], Doubles]] = {}
    for shrinkage in _SHRINKAGES:
        seen = Seen.of(means, within, shrinkage)
        background = Seen.of(centre, total, shrinkage)
        found[f"Mahalanobis, shrinkage {shrinkage:g}"] = seen.distances
        found[f"relative Mahalanobis, shrinkage {shrinkage:g}"] = _relative(seen, background)
    for number in _NEIGHBOURS:
        found[f"nearest neighbour {number}"] = _neighbour(rows, number)
    return found


def _relative(seen: Seen, background: Seen) -> Callable[[Floats], Doubles]:
    return lambda embeddings: seen.distances(embeddings) ** 2 - background.distances(embeddings) ** 2


def _neighbour(rows: Floats, number: int) -> Callable[[Floats], Doubles]:
    def distance(embeddings: Floats) -> Doubles:
        nearness = unit_rows(embeddings) @ rows.T
        apart: Doubles = 1 - np.sort(nearness, axis=1)[:, -number].astype(np.float64)
        return apart

    return distance


def _joined(parts: list[GroupedImages]) -> GroupedImages:
    return GroupedImages.of(
        np.concatenate([part.embeddings for part in parts]), np.concatenate([part.labels for part in parts])
    )
