"""`fedmedclip data`: read, assess, print, and write the page that stays at the site."""

import secrets
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
from fedmedclip.edge_client.images.grouping import Grouping, GroupNaming, group_images, name_groups
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
    groups_file: Path | None = None,
    group_column: str | None = None,
    split_file: Path | None = None,
    out: Path | None = None,
    settings: ReaderSettings = DEFAULT_READING,
    strict: bool = False,
) -> DataFindings:
    """Return the findings on a site's data, and write `data.html` and `data.json` into `out` where given.

    `data` is what `load_dataset` takes; without `class_names` its own classes are taken. Nothing is encoded.
    `groups_file` and `group_column` name groups as at a site; their names are hashed by a key that is
    forgotten.

    Raises InvalidInputError for data that `load_dataset` refuses or of which no image can be read, with
    `strict` when any cannot, for a folder of several sites, and for a split that cannot be read.
    """
    names = class_names_of(data) if class_names is None else class_names
    dataset = load_dataset(data, names, minimum_per_class=1, settings=settings, group_column=group_column)
    record = None if split_file is None else _record(split_file)
    with progress_bar("reading images") as progress:
        survey = survey_data(dataset, settings, progress)
        if strict:
            refuse_skipped(survey.skipped)
        if not survey.images:
            raise InvalidInputError(
                f"data {data} has no image that can be read: {summarize_skipped(survey.skipped)}"
            )
        progress(0, 0, "comparing images")
        grouping = _grouping(survey, GroupNaming(groups_file, secrets.token_bytes(32)))
        pairs = _pairs(survey, grouping)
        findings = assess(survey, pairs, grouping, record)
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


def _grouping(survey: Survey, naming: GroupNaming) -> Grouping:
    named = name_groups(survey.dataset, [found.image for found in survey.images], naming)
    hashes = [found.content_hash for found in survey.images]
    return group_images(named, hashes, Appearances.of([found.appearance for found in survey.images]))


def _pairs(survey: Survey, grouping: Grouping) -> AlikePairs:
    keys = [found.key for found in survey.images]
    return alike_pairs(grouping.look_alikes, keys, [found.image.label for found in survey.images])


def _record(split_file: Path) -> Record:
    recorded = read_split(split_file)
    if not recorded:
        raise InvalidInputError(f"--split {split_file}: no image is recorded there")
    return Record(split_file, {content_hash: part for content_hash, (_, part) in recorded.items()})
