"""From what was read to findings: counts, sizes, pairs that are alike, groups, the split. No I/O."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import msgspec

from fedmedclip.edge_client.data_report.findings import (
    ClassFindings,
    DataFindings,
    GroupFindings,
    PairFindings,
    PartCount,
    Size,
    SizeFindings,
    SkippedFiles,
)
from fedmedclip.edge_client.data_report.pairs import AlikePairs, Pair
from fedmedclip.edge_client.data_report.recorded_split import Record, worth_of
from fedmedclip.edge_client.data_report.remarks import remarks_on
from fedmedclip.edge_client.data_report.survey import Survey
from fedmedclip.edge_client.features.extraction import SkippedImage
from fedmedclip.edge_client.images.grouping import Grouping
from fedmedclip.edge_client.images.split import DEFAULT_FRACTIONS, PARTS, ContentLabel, Part, draw_parts
from fedmedclip.protocol.visible import visible

MOST_PAIRS = 10_000
"""So many pairs of each kind are listed; a class of copies has the square of its images."""
MOST_SKIPPED_NAMED = 1000

# Raised when the same data would be reported otherwise.
_VERSION = 1


def assess(survey: Survey, pairs: AlikePairs, grouping: Grouping, record: Record | None) -> DataFindings:
    """Return all findings of a survey with at least one image."""
    findings = DataFindings(
        data=visible(survey.dataset.source),
        digest=digest_of(survey, grouping, record),
        images=len(survey.images),
        different=len({image.content_hash for image in survey.images}),
        classes=_classes(survey, grouping, parts_of(survey, grouping, record)),
        sizes=_sizes(survey),
        ignored_files=survey.dataset.ignored_files,
        skipped=_skipped(survey.skipped, survey.dataset.source),
        groups=_groups(grouping),
        split_origin=_split_origin(survey, record),
        pairs_across=pairs.counts(across=True),
        pairs_within=pairs.counts(across=False),
        across=[_pair(survey, pair) for pair in pairs.listed(MOST_PAIRS, across=True)],
        within=[_pair(survey, pair) for pair in pairs.listed(MOST_PAIRS, across=False)],
        split=None if record is None else worth_of(survey, pairs, grouping, record),
        remarks=[],
    )
    return msgspec.structs.replace(findings, remarks=[*remarks_on(findings), *map(visible, grouping.notes)])


def digest_of(survey: Survey, grouping: Grouping, record: Record | None) -> str:
    """Return SHA-256, in hexadecimal, of what a report is about."""
    digest = hashlib.sha256(f"report {_VERSION}, {survey.dataset.ignored_files} ignored".encode())
    for found, group in zip(survey.images, grouping.names, strict=True):
        digest.update(repr((found.key, found.image.name, found.image.label, group)).encode())
    for skipped in survey.skipped:
        digest.update(repr((str(skipped.path), skipped.reason)).encode())
    if record is not None:
        digest.update(repr(sorted(record.parts.items())).encode())
    return digest.hexdigest()


def parts_of(survey: Survey, grouping: Grouping, record: Record | None) -> list[Part]:
    """Return the part of each image: an archive's own, else as recorded, else as it would be drawn."""
    present: dict[bytes, ContentLabel] = {}
    labels = [
        ContentLabel(found.image.label, found.image.name, found.content_hash, group)
        for found, group in zip(survey.images, grouping.names, strict=True)
    ]
    for label in sorted(labels):
        present.setdefault(label.content_hash, label)
    recorded = {} if record is None else record.parts
    known = {content_hash: part for content_hash, part in recorded.items() if content_hash in present}
    drawn = draw_parts(present.values(), known, 0, DEFAULT_FRACTIONS)
    return [found.image.part or drawn[found.content_hash] for found in survey.images]


def _classes(survey: Survey, grouping: Grouping, parts: Sequence[Part]) -> list[ClassFindings]:
    contents: dict[str, set[bytes]] = defaultdict(set)
    groups: dict[str, set[int]] = defaultdict(set)
    counts: Counter[tuple[str, Part]] = Counter()
    groups_of_parts: dict[tuple[str, Part], set[int]] = defaultdict(set)
    for found, group, part in zip(survey.images, grouping.rows.tolist(), parts, strict=True):
        label = found.image.label
        contents[label].add(found.content_hash)
        groups[label].add(group)
        counts[label, part] += 1
        groups_of_parts[label, part].add(group)
    labels = Counter(found.image.label for found in survey.images)
    listed = {image.label for image in survey.dataset.images} | set(survey.dataset.absent_classes)
    return [
        ClassFindings(
            name=visible(label),
            images=labels[label],
            different=len(contents[label]),
            groups=len(groups[label]),
            share=round(labels[label] / max(1, len(survey.images)), 4),
            parts={part: PartCount(counts[label, part], len(groups_of_parts[label, part])) for part in PARTS},
        )
        for label in sorted(listed)
    ]


def _sizes(survey: Survey) -> SizeFindings:
    forms = [found.form for found in survey.images if found.form is not None]
    sizes = sorted((form.size for form in forms), key=lambda size: (size[0] * size[1], size)) or [(0, 0)]
    smallest, median, largest = (Size(*sizes[at]) for at in (0, len(sizes) // 2, -1))
    words = Counter(form.words() for form in forms)
    if unknown := len(survey.images) - len(forms):
        words["not told by the header"] = unknown
    return SizeFindings(smallest, median, largest, len(set(sizes)), dict(words.most_common()))


def _skipped(skipped: Sequence[SkippedImage], source: Path) -> list[SkippedFiles]:
    by_reason: dict[str, list[str]] = defaultdict(list)
    for found in skipped:
        folder = source if source.is_dir() else source.parent
        inside = found.path.is_relative_to(folder)
        by_reason[found.reason].append(visible(found.path.relative_to(folder) if inside else found.path))
    return [
        SkippedFiles(visible(reason), len(files), files[:MOST_SKIPPED_NAMED])
        for reason, files in sorted(by_reason.items(), key=lambda item: (-len(item[1]), item[0]))
    ]


def _groups(grouping: Grouping) -> GroupFindings:
    sizes = Counter(Counter(grouping.rows.tolist()).values())
    origins = Counter(source for source in grouping.sources if source)
    return GroupFindings(dict(origins.most_common()), sizes.total(), max(sizes), dict(sorted(sizes.items())))


def _split_origin(survey: Survey, record: Record | None) -> str:
    if all(found.image.part for found in survey.images):
        return "as the archive has it"
    return "as a new split would have it" if record is None else "as recorded"


def _pair(survey: Survey, pair: Pair) -> PairFindings:
    first, second = (survey.images[position].image for position in (pair.first, pair.second))
    return PairFindings(
        pair.likeness,
        visible(first.name),
        visible(second.name),
        visible(first.label),
        visible(second.label),
        round(pair.correlation, 4),
    )
