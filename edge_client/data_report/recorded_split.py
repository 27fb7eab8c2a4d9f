"""What a recorded split is worth: which test images look like what was trained on."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fedmedclip.edge_client.data_report.findings import SplitFindings
from fedmedclip.edge_client.data_report.pairs import AlikePairs
from fedmedclip.edge_client.data_report.survey import Survey
from fedmedclip.edge_client.images.grouping import Grouping
from fedmedclip.edge_client.images.split import Part
from fedmedclip.protocol.visible import visible


@dataclass(frozen=True)
class Record:
    """A split that was recorded: its file, and the part of each content hash."""

    file: Path
    parts: Mapping[bytes, Part]


def worth_of(survey: Survey, pairs: AlikePairs, grouping: Grouping, record: Record) -> SplitFindings:
    """Compare the record with the pairs that are alike and with the groups."""
    parts = [record.parts.get(found.content_hash) for found in survey.images]
    identical = grouping.look_alikes.pairs[grouping.look_alikes.identical]
    copies = _test_images_like_training(pairs.copies(), identical, parts)
    alike = _test_images_like_training(pairs.positions, identical, parts)
    parts_of_group: dict[int, set[Part]] = defaultdict(set)
    for group, part in zip(grouping.rows.tolist(), parts, strict=True):
        if part is not None:
            parts_of_group[group].add(part)
    return SplitFindings(
        file=visible(record.file),
        unrecorded=sum(part is None for part in parts),
        test=sum(part == "test" for part in parts),
        test_copies_in_training=copies,
        test_look_alikes_in_training=alike - copies,
        groups_in_two_parts=sum(len(found) > 1 for found in parts_of_group.values()),
    )


def _test_images_like_training(
    positions: npt.NDArray[np.int64], identical: npt.NDArray[np.int64], parts: Sequence[Part | None]
) -> int:
    """Count test images that have a pair, or a copy of their pixels has one, with a training image."""
    # Of many images with the same pixels only the first is in pairs with others.
    look = np.arange(len(parts))
    look[identical[:, 1]] = identical[:, 0]
    trained = np.zeros(len(parts), dtype=np.bool_)
    trained[look[[part == "train" for part in parts]]] = True
    like_training = np.zeros(len(parts), dtype=np.bool_)
    first, second = look[positions[:, 0]], look[positions[:, 1]]
    like_training[first[trained[second]]] = True
    like_training[second[trained[first]]] = True
    return int(like_training[look[[part == "test" for part in parts]]].sum())
