"""`fedmedclip data`: read, assess, print, and write the page that stays at the site."""

import secrets
from dataclasses import replace
from pathlib import Path

import msgspec

from fedmedclip.edge_client.data_report.assessment import assess
from fedmedclip.edge_client.data_report.findings import DataFindings
from fedmedclip.edge_client.data_report.gallery import gallery_of
from fedmedclip.edge_client.data_report.page import to_html
from fedmedclip.edge_client.data_report.pairs import AlikePairs, alike_pairs
from fedmedclip.edge_client.data_report.recorded_split import Record
from fedmedclip.edge_client.data_report.survey import Survey, survey_data
from fedmedclip.edge_client.data_report.thumbnails import thumbnails
from fedmedclip.edge_client.features.extraction import refuse_skipped, summarize_skipped
from fedmedclip.edge_client.images.appearance import Appearances
from fedmedclip.edge_client.images.dataset import class_names_of, load_dataset
from fedmedclip.edge_client.images.grouping import (
    DEFAULT_NAMING,
    Grouping,
    GroupNaming,
    group_images,
    name_groups,
)
from fedmedclip.edge_client.images.readers.settings import DEFAULT_READING, ReaderSettings
from fedmedclip.edge_client.images.split import read_split
from fedmedclip.edge_client.progress import progress_bar
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.new_files import write_new_file

PAGE = "data.html"
FINDINGS = "data.json"


def report_on(
    data: Path,
    class_names: tuple[str, ...] | None,
    *,
    naming: GroupNaming = DEFAULT_NAMING,
    split_file: Path | None = None,
    out: Path | None = None,
    settings: ReaderSettings = DEFAULT_READING,
    strict: bool = False,
) -> DataFindings:
    """Return the findings on a site's data, and write `data.html` and `data.json` into `out` where given.

    `data` is what `load_dataset` takes; without `class_names` its own classes are taken. Nothing is encoded.
    `naming` says what names the groups; unless it has a key, their names are hashed by one that is forgotten.

    Raises InvalidInputError for data that `load_dataset` refuses or of which no image can be read, with
    `strict` when any cannot, for a folder of several sites, and for a split that cannot be read.
    """
    names = class_names_of(data) if class_names is None else class_names
    dataset = load_dataset(data, names, minimum_per_class=1, settings=settings, group_column=naming.column)
    record = None if split_file is None else read_record(split_file)
    if split_file is not None and record is None:
        raise InvalidInputError(f"--split {split_file}: no image is recorded there")
    with progress_bar("reading images") as progress:
        survey, appearances = survey_data(dataset, settings, progress)
        if strict:
            refuse_skipped(survey.skipped)
        if not survey.images:
            raise InvalidInputError(
                f"data {data} has no image that can be read: {summarize_skipped(survey.skipped)}"
            )
        progress(0, 0, "comparing images")
        grouping = _grouping(survey, appearances, naming)
        findings, pairs = findings_on(survey, grouping, record)
        if out is not None:
            progress(0, 0, "making the page")
            write_report(out, findings, survey, pairs, grouping, settings)
    return findings


def write_report(
    folder: Path,
    findings: DataFindings,
    survey: Survey,
    pairs: AlikePairs,
    grouping: Grouping,
    settings: ReaderSettings,
) -> None:
    """Write page and findings into a folder, made if need be, readable for their owner only."""
    gallery = gallery_of(survey, pairs, grouping)
    page = to_html(findings, survey, gallery, thumbnails(gallery.paths(survey), settings))
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_new_file(folder / PAGE, page.encode(), private=True)
    write_new_file(folder / FINDINGS, encoded(findings), private=True)


def encoded(findings: DataFindings) -> bytes:
    """Return the findings as JSON for people and programs."""
    return msgspec.json.format(msgspec.json.encode(findings), indent=2) + b"\n"


def _grouping(survey: Survey, appearances: Appearances, naming: GroupNaming) -> Grouping:
    if not naming.key:
        naming = replace(naming, key=secrets.token_bytes(32))
    named = name_groups(survey.dataset, [found.image for found in survey.images], naming)
    return group_images(named, [found.content_hash for found in survey.images], appearances)


def findings_on(survey: Survey, grouping: Grouping, record: Record | None) -> tuple[DataFindings, AlikePairs]:
    """Return the findings on images that were read and grouped, with the pairs that are alike."""
    keys = [found.key for found in survey.images]
    pairs = alike_pairs(grouping.look_alikes, keys, [found.image.label for found in survey.images])
    return assess(survey, pairs, grouping, record), pairs


def read_record(split_file: Path) -> Record | None:
    """Return the split in a file; None when there is none. Raises InvalidInputError for a damaged one."""
    recorded = read_split(split_file)
    parts = {content_hash: part for content_hash, (_, part) in recorded.items()}
    return Record(split_file, parts) if parts else None
