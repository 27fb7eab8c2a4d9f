"""A site's data as heads need it: embeddings and labels, in parts, with a report of what was left out."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fedmedclip.edge_client.features.appearances import load_appearances
from fedmedclip.edge_client.features.extraction import (
    FeatureExtraction,
    Progress,
    SkippedImage,
    extract_features,
    refuse_skipped,
    summarize_skipped,
)
from fedmedclip.edge_client.features.feature_store import FeatureStore
from fedmedclip.edge_client.features.providers import PROCESSOR_ALONE
from fedmedclip.edge_client.images.dataset import Dataset, load_dataset
from fedmedclip.edge_client.images.grouping import (
    DEFAULT_NAMING,
    Grouping,
    GroupNaming,
    group_images,
    name_groups,
)
from fedmedclip.edge_client.images.readers.settings import DEFAULT_READING, ReaderSettings
from fedmedclip.edge_client.images.split import (
    DEFAULT_FRACTIONS,
    PARTS,
    ContentLabel,
    Part,
    SplitLeak,
    leak_of,
    read_split,
    split_images,
)
from fedmedclip.protocol.bundle.bundle import Bundle
from fedmedclip.protocol.errors import InvalidInputError

# Who names an image's patient; a study or a resemblance does not.
_NAMED_PATIENTS = ("column", "groups file", "patient")


@dataclass(frozen=True)
class LabelledFeatures:
    """Embeddings float32 (N, D), and labels int64 (N,): indices into the bundle's class names.

    Equal numbers in `groups` int64 (N,) are of one patient, or look alike; None where that is not known.
    """

    embeddings: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    groups: npt.NDArray[np.int64] | None = None


@dataclass(frozen=True)
class DataReport:
    """What was found in a site's data.

    `class_counts` has the readable images of each class of the bundle; `copies` counts the images whose
    content occurred before, `contradictory` the contents that occur under more than one label, and
    `ignored_files` the files that are no images by name. `encoded` images were not in the feature store.
    `group_lines` say which images belong together.
    """

    images: int
    encoded: int
    class_counts: dict[str, int]
    skipped: tuple[SkippedImage, ...]
    ignored_files: int
    copies: int
    contradictory: int
    group_lines: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """Return the report as lines for a person."""
        counts = ", ".join(f"{name} {count}" for name, count in self.class_counts.items() if count)
        lines = [
            f"{self.images} images ({counts}); {summarize_skipped(self.skipped)}",
            f"{self.encoded} embeddings computed, the others were known",
        ]
        if absent := [name for name, count in self.class_counts.items() if not count]:
            lines.append(f"no image of {', '.join(absent)}: nothing about that is learned here")
        if self.ignored_files:
            lines.append(f"{self.ignored_files} other files ignored")
        if self.copies:
            lines.append(f"{self.copies} copies of another image; a copy is always in the same part")
        if self.contradictory:
            lines.append(f"{self.contradictory} images occur under more than one label; check them")
        return [*lines, *self.group_lines]


@dataclass(frozen=True)
class ReadImages:
    """Which images of a data set could be read: positions in it, with content hash and key of each."""

    dataset: Dataset
    positions: tuple[int, ...]
    content_hashes: tuple[bytes, ...]
    keys: tuple[bytes, ...]
    skipped: tuple[SkippedImage, ...]


@dataclass(frozen=True)
class SiteFeatures:
    """A site's features in their three parts. `part_counts` are images per part and class name.

    `patients_named` says whether the data name the patient of each training image. `grouping` has the group
    of each image in `read`, in order; `leak` says how much of the test split is no test, because training has
    its look-alikes.
    """

    train: LabelledFeatures
    validation: LabelledFeatures
    test: LabelledFeatures
    part_counts: dict[Part, dict[str, int]]
    report: DataReport
    patients_named: bool = False
    grouping: Grouping | None = None
    read: ReadImages | None = None
    leak: SplitLeak | None = None

    @property
    def train_groups(self) -> npt.NDArray[np.int64]:
        """Return equal numbers (N,) for training images of one group."""
        groups = self.train.groups
        return np.arange(len(self.train.labels)) if groups is None else groups


def load_site_features(
    data: Path,
    bundle: Bundle,
    store: FeatureStore,
    split_file: Path,
    seed: int,
    *,
    fractions: Mapping[Part, float] = DEFAULT_FRACTIONS,
    settings: ReaderSettings = DEFAULT_READING,
    naming: GroupNaming = DEFAULT_NAMING,
    strict: bool = False,
    batch_size: int = 16,
    threads: int | None = None,
    providers: Sequence[str] = PROCESSOR_ALONE,
    progress: Progress | None = None,
) -> SiteFeatures:
    """Return the features of a site's data, split as `split_file` says (see `edge_client.images.split`).

    `data` is what `load_dataset` takes. Images of one group (see `edge_client.images.grouping`) are in one
    part. `seed` is that of the split alone: derive it with
    `protocol.seeds.derive_seed`. The parts of an archive are its own; the frames of one file are always in
    one part. Images that cannot be read are skipped and reported, or with `strict` refused.

    Raises InvalidInputError for unusable data (see `load_dataset`) or a damaged split file, and when a class
    has fewer than two different images that can be read; BundleError and StorageError as
    `extract_features` does.
    """
    dataset = load_dataset(data, bundle.manifest.class_names, settings=settings, group_column=naming.column)
    extraction = _extract(dataset, bundle, store, settings, batch_size, threads, progress, providers)
    if strict:
        refuse_skipped(extraction.skipped)
    grouping = group_dataset(dataset, extraction, store, settings=settings, naming=naming, progress=progress)
    images = [
        ContentLabel(dataset.images[position].label, dataset.images[position].name, content_hash, *group)
        for position, content_hash, *group in zip(
            extraction.positions, extraction.content_hashes, grouping.names, grouping.sources, strict=True
        )
    ]
    _require_two_images_per_class(dataset, images, extraction)
    given = [dataset.images[position].part for position in extraction.positions]
    drawn = {} if all(given) else split_images(images, split_file, seed, fractions)
    reasons = {} if all(given) else read_split(split_file)
    labels = _label_indices([image.label for image in images], bundle)
    parts = np.array(
        [PARTS.index(part or drawn[image.content_hash]) for part, image in zip(given, images, strict=True)]
    )
    selected = {
        part: LabelledFeatures(
            extraction.embeddings[parts == index], labels[parts == index], grouping.rows[parts == index]
        )
        for index, part in enumerate(PARTS)
    }
    part_counts = {part: _class_counts(features.labels, bundle) for part, features in selected.items()}
    report = _report(dataset, labels, extraction, bundle)
    group_lines = tuple(grouping.lines([image.label for image in images]))
    return SiteFeatures(
        **selected,
        part_counts=part_counts,
        report=replace(report, group_lines=group_lines),
        patients_named=all(
            source in _NAMED_PATIENTS
            for source, part in zip(grouping.sources, parts.tolist(), strict=True)
            if PARTS[part] == "train"
        ),
        grouping=grouping,
        read=ReadImages(
            dataset,
            tuple(extraction.positions),
            tuple(extraction.content_hashes),
            tuple(extraction.keys),
            tuple(extraction.skipped),
        ),
        leak=leak_of(
            reasons.get(image.content_hash) or (image, PARTS[part])
            for image, part in zip(images, parts.tolist(), strict=True)
        ),
    )


def group_dataset(
    dataset: Dataset,
    extraction: FeatureExtraction,
    store: FeatureStore,
    *,
    settings: ReaderSettings = DEFAULT_READING,
    naming: GroupNaming = DEFAULT_NAMING,
    progress: Progress | None = None,
) -> Grouping:
    """Return the groups of those images of a data set that could be read, in the order of `extraction`.

    Raises InvalidInputError for a groups file that cannot be used, and StorageError.
    """
    named = name_groups(dataset, [dataset.images[position] for position in extraction.positions], naming)
    appearances = load_appearances(
        extraction.keys, extraction.paths, store, settings=settings, progress=progress
    )
    return group_images(named, extraction.content_hashes, appearances)


def load_labelled_features(
    data: Path,
    bundle: Bundle,
    store: FeatureStore,
    *,
    settings: ReaderSettings = DEFAULT_READING,
    strict: bool = False,
    batch_size: int = 16,
    threads: int | None = None,
    progress: Progress | None = None,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64], DataReport]:
    """Return embeddings float32 (N, D), labels int64 (N,) and a report for labelled images, to evaluate on.

    Here one image of a class is enough. Of an archive with a test part only that is taken. Raises as
    `load_site_features` does, and InvalidInputError when no image can be read.
    """
    found, report = load_labelled_groups(
        data,
        bundle,
        store,
        part="test",
        naming=None,
        settings=settings,
        strict=strict,
        batch_size=batch_size,
        threads=threads,
        progress=progress,
    )
    return found.embeddings, found.labels, report


def load_labelled_groups(
    data: Path,
    bundle: Bundle,
    store: FeatureStore,
    *,
    part: Part,
    naming: GroupNaming | None,
    settings: ReaderSettings = DEFAULT_READING,
    strict: bool = False,
    batch_size: int = 16,
    threads: int | None = None,
    progress: Progress | None = None,
) -> tuple[LabelledFeatures, DataReport]:
    """Return the features of labelled images, grouped where `naming` is given, and a report.

    Of an archive with such a part only that `part` is taken. Raises as `load_labelled_features` does.
    """
    column = None if naming is None else naming.column
    dataset = load_dataset(
        data, bundle.manifest.class_names, minimum_per_class=1, settings=settings, group_column=column
    )
    if of_part := tuple(image for image in dataset.images if image.part == part):
        dataset = replace(dataset, images=of_part)
    extraction = _extract(dataset, bundle, store, settings, batch_size, threads, progress)
    if strict:
        refuse_skipped(extraction.skipped)
    if not extraction.paths:
        raise InvalidInputError(
            f"data {data} has no image that can be read: {summarize_skipped(extraction.skipped)}"
        )
    labels = _label_indices([dataset.images[position].label for position in extraction.positions], bundle)
    groups = None
    if naming is not None:
        groups = group_dataset(
            dataset, extraction, store, settings=settings, naming=naming, progress=progress
        ).rows
    found = LabelledFeatures(extraction.embeddings, labels, groups)
    return found, _report(dataset, labels, extraction, bundle)


def _extract(
    dataset: Dataset,
    bundle: Bundle,
    store: FeatureStore,
    settings: ReaderSettings,
    batch_size: int,
    threads: int | None,
    progress: Progress | None,
    providers: Sequence[str] = PROCESSOR_ALONE,
) -> FeatureExtraction:
    paths = [image.path for image in dataset.images]
    return extract_features(
        paths,
        bundle,
        store,
        settings=settings,
        batch_size=batch_size,
        threads=threads,
        providers=providers,
        progress=progress,
    )


def _require_two_images_per_class(
    dataset: Dataset, images: Sequence[ContentLabel], extraction: FeatureExtraction
) -> None:
    different = Counter(label for label, _ in {(image.label, image.content_hash) for image in images})
    for label in sorted({image.label for image in dataset.images}):
        if different[label] < 2:
            paths = {image.path for image in dataset.images if image.label == label}
            skipped = [image for image in extraction.skipped if image.path in paths]
            raise InvalidInputError(
                f"data {dataset.source}: class {label!r} needs two different images that can be read, "
                f"it has {different[label]} ({summarize_skipped(skipped)}); add images or remove the class"
            )


def _label_indices(labels: Sequence[str], bundle: Bundle) -> npt.NDArray[np.int64]:
    index_of = {name: index for index, name in enumerate(bundle.manifest.class_names)}
    return np.array([index_of[label] for label in labels], dtype=np.int64)


def _class_counts(labels: npt.NDArray[np.int64], bundle: Bundle) -> dict[str, int]:
    class_names = bundle.manifest.class_names
    return dict(zip(class_names, np.bincount(labels, minlength=len(class_names)).tolist(), strict=True))


def _report(
    dataset: Dataset, labels: npt.NDArray[np.int64], extraction: FeatureExtraction, bundle: Bundle
) -> DataReport:
    different = set(extraction.keys)
    label_pairs = set(zip(extraction.keys, labels.tolist(), strict=True))
    per_content = Counter(key for key, _ in label_pairs)
    return DataReport(
        images=len(extraction.paths),
        encoded=extraction.encoded,
        class_counts=_class_counts(labels, bundle),
        skipped=tuple(extraction.skipped),
        ignored_files=dataset.ignored_files,
        copies=len(extraction.paths) - len(different),
        contradictory=sum(count > 1 for count in per_content.values()),
    )
