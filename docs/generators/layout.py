"""Where boxes and arrows go: a drawing by levels after Sugiyama, Tagawa and Toda (1981).

Arrows over several levels get a place on each level between, so that they pass beside the boxes; the order on
the levels follows the neighbours' mean place, which takes out most crossings.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

SWEEPS = 40
BOX, GAP, LANE = 158.0, 14.0, 12.0


@dataclass(frozen=True)
class Layout:
    """The middle of each box, in units of the picture, by name; the x of an arrow on every level it touches.

    `rows` are names from level 0 upwards; `arrows` are keyed (upper, lower), from the upper's level down.
    """

    x: Mapping[str, float]
    rows: Sequence[Sequence[str]]
    arrows: Mapping[tuple[str, str], Sequence[float]]
    width: float


def laid_out(level: Mapping[str, int], imports: Mapping[str, set[str]], order: Mapping[str, int]) -> Layout:
    """Place boxes of given `level`; `order` says which stand beside each other at the start.

    `imports` may only lead to lower levels.
    """
    ways = {
        (upper, lower): _way(upper, lower, level) for upper in sorted(imports) for lower in imports[upper]
    }
    places: list[list[str]] = [[] for _ in range(max(level.values(), default=0) + 1)]
    neighbours: dict[str, tuple[list[str], list[str]]] = {}
    for name in sorted(level, key=lambda name: (order[name], name)):
        places[level[name]].append(name)
        neighbours[name] = ([], [])
    for (upper, _), way in sorted(ways.items()):
        for depth, lane in enumerate(way[1:-1], start=1):
            places[level[upper] - depth].append(lane)
            neighbours[lane] = ([], [])
        for above, below in pairwise(way):
            neighbours[above][1].append(below)
            neighbours[below][0].append(above)
    x = {place: 100.0 * index for row in places for index, place in enumerate(row)}
    for sweep in range(SWEEPS):
        downwards = sweep % 2 == 0
        for row in reversed(places) if downwards else places:
            side = 0 if downwards else 1
            wanted = {
                place: _mean([x[other] for other in neighbours[place][side]], x[place]) for place in row
            }
            row.sort(key=lambda place: wanted[place])
            x.update(_apart(row, wanted, level))
    for _ in range(SWEEPS):
        for row in places:
            wanted = {
                place: _mean([x[other] for side in neighbours[place] for other in side], x[place])
                for place in row
            }
            x.update(_apart(row, wanted, level))
    left = min(x[place] - _size(place, level) / 2 for place in x)
    x = {place: value - left for place, value in x.items()}
    return Layout(
        x={name: x[name] for name in level},
        rows=[[place for place in row if place in level] for row in places],
        arrows={ends: [x[place] for place in way] for ends, way in ways.items()},
        width=max(x[place] + _size(place, level) / 2 for place in x),
    )


def without_shortcuts(
    imports: Mapping[str, set[str]], reachable: Mapping[str, set[str]]
) -> dict[str, set[str]]:
    """Return the imports that no other import of the same room leads to."""
    return {
        upper: {
            lower
            for lower in lowers
            if not any(
                lower in reachable[other] and upper not in reachable[other] for other in lowers - {lower}
            )
        }
        for upper, lowers in imports.items()
    }


def _way(upper: str, lower: str, level: Mapping[str, int]) -> list[str]:
    # Arrows to the same room share their lanes: they are one stream where they run side by side.
    lanes = [f"{lower} from {depth}" for depth in range(level[upper] - 1, level[lower], -1)]
    return [upper, *lanes, lower]


def _size(place: str, level: Mapping[str, int]) -> float:
    return BOX if place in level else LANE


def _mean(values: Sequence[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise


def _apart(row: Sequence[str], wanted: Mapping[str, float], level: Mapping[str, int]) -> dict[str, float]:
    """Return places as near to those wanted as the order and the sizes allow: the mean of two packings."""
    if not row:
        return {}
    steps = [(_size(left, level) + _size(right, level)) / 2 + GAP for left, right in pairwise(row)]
    from_left, from_right = [wanted[row[0]]], [wanted[row[-1]]]
    for place, step in zip(row[1:], steps, strict=True):
        from_left.append(max(wanted[place], from_left[-1] + step))
    for place, step in zip(reversed(row[:-1]), reversed(steps), strict=True):
        from_right.append(min(wanted[place], from_right[-1] - step))
    pairs = zip(row, from_left, reversed(from_right), strict=True)
    return {place: (left + right) / 2 for place, left, right in pairs}
