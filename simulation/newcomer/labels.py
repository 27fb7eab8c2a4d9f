"""The labelled images that a newcomer has: so many of each class, the more holding the fewer."""

from typing import Literal

import numpy as np
import numpy.typing as npt

from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.seeds import derive_seed
from fedmedclip.simulation.federation.virtual_sites import Indices, VirtualSite

Labels = int | Literal["all"]
"""How many labelled images of each class a newcomer has."""

_MOST = 1_000_000


def parse_labels(text: str) -> list[Labels]:
    """Return the numbers of "0,1,2,all", ascending and each once. Raises InvalidInputError for others."""
    numbers: set[int] = set()
    everything = False
    for part in map(str.strip, text.split(",")):
        if part == "all":
            everything = True
        elif part.isascii() and part.isdigit() and len(part) < 8 and int(part) <= _MOST:
            numbers.add(int(part))
        else:
            raise InvalidInputError(
                f"--labels {text[:80]!r}: {part[:40]!r} is no number of images; give whole numbers from 0, "
                "or all, with commas between them, such as 0,1,2,all"
            )
    return [*sorted(numbers), *(("all",) if everything else ())]


def with_labels(
    site: VirtualSite,
    number: Labels,
    labels: Indices,
    groups: Indices,
    seed: int,
    missing: int | None = None,
) -> VirtualSite:
    """Return the newcomer with `number` training images of each class, and its own test part as it is.

    `labels` and `groups` (N,) are those of the whole pool; of class `missing` it has no image at all. Where a
    class has fewer images, all of them are taken. Of a class, groups are taken in turn, one image of each
    before a second of any: few images that look alike would be worth less than their number. With all
    images it has its validation part too; with a number of them it has only these, and validates on none.
    """
    if number == "all":
        train = site.train[_others(labels[site.train], missing)]
        validation = site.validation[_others(labels[site.validation], missing)]
        return VirtualSite(site.name, train, validation, site.test)
    chosen: list[Indices] = []
    for label in np.unique(labels[site.train]):
        if label != missing:
            members = site.train[labels[site.train] == label]
            draw = np.random.Generator(
                np.random.Philox(
                    derive_seed(seed, site=site.name, purpose=f"labelled images of class {label}")
                )
            )
            chosen.append(_groups_in_turn(members, groups, draw)[:number])
    taken = np.concatenate(chosen) if chosen else np.empty(0, dtype=np.int64)
    return VirtualSite(site.name, site.train[np.isin(site.train, taken)], site.validation[:0], site.test)


def _groups_in_turn(images: Indices, groups: Indices, draw: np.random.Generator) -> Indices:
    """Return the images in an order drawn at random, but the first of every group before any second."""
    mixed = draw.permutation(images)
    times_before: dict[int, int] = {}
    turns = []
    for group in groups[mixed].tolist():
        turns.append(times_before.get(group, 0))
        times_before[group] = turns[-1] + 1
    order: Indices = mixed[np.argsort(turns, kind="stable")]
    return order


def _others(labels: Indices, missing: int | None) -> npt.NDArray[np.bool_]:
    """Return which images are of another class than the missing one."""
    return np.ones(len(labels), dtype=np.bool_) if missing is None else labels != missing
