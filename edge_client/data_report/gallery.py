"""Which images the page shows: a few hundred at most, however many there are."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fedmedclip.edge_client.data_report.pairs import AlikePairs, Pair
from fedmedclip.edge_client.data_report.survey import Survey
from fedmedclip.edge_client.images.grouping import Grouping

MOST_ACROSS = 60
MOST_WITHIN = 30
_MOST_GROUPS, _OF_A_GROUP = 12, 7
_MOST_CLASSES, _OF_A_CLASS = 12, 6


@dataclass(frozen=True)
class ShownGroup:
    """A group by its name, with its number of images and the positions of those that are shown."""

    name: str
    size: int
    shown: list[int]


@dataclass(frozen=True)
class Gallery:
    """Positions in a survey: pairs under two labels and of one class, members of the largest groups, examples
    of classes by label. `several` counts the groups of more than one image.
    """

    across: list[Pair]
    within: list[Pair]
    groups: list[ShownGroup]
    several: int
    examples: dict[str, list[int]]

    def positions(self) -> list[int]:
        """All images that are shown, each once."""
        pairs = [at for pair in (*self.across, *self.within) for at in (pair.first, pair.second)]
        others = [
            at for shown in (*(group.shown for group in self.groups), *self.examples.values()) for at in shown
        ]
        return list(dict.fromkeys([*pairs, *others]))

    def paths(self, survey: Survey) -> list[Path]:
        """The images' addresses."""
        return [survey.images[at].image.path for at in self.positions()]


def gallery_of(survey: Survey, pairs: AlikePairs, grouping: Grouping) -> Gallery:
    """Choose: the likeliest label errors, the most alike near-copies, the largest groups, and of each class
    images from its beginning to its end.
    """
    members: dict[int, list[int]] = defaultdict(list)
    labels: dict[str, list[int]] = defaultdict(list)
    for at, (found, group) in enumerate(zip(survey.images, grouping.rows.tolist(), strict=True)):
        labels[found.image.label].append(at)
        members[group].append(at)
    several = [found for found in members.values() if len(found) > 1]
    largest = sorted(several, key=lambda found: (-len(found), found[0]))[:_MOST_GROUPS]
    return Gallery(
        pairs.listed(MOST_ACROSS, across=True),
        pairs.listed(MOST_WITHIN, across=False, differing=True),
        [ShownGroup(grouping.names[found[0]], len(found), found[:_OF_A_GROUP]) for found in largest],
        len(several),
        {label: _spread(labels[label]) for label in sorted(labels)[:_MOST_CLASSES]},
    )


def _spread(positions: Sequence[int]) -> list[int]:
    count = min(_OF_A_CLASS, len(positions))
    return [positions[number * len(positions) // count] for number in range(count)]
