"""The report that a site makes at its start, of what it has read anyway, when its data changed."""

import logging
from pathlib import Path

import msgspec

from fedmedclip.edge_client.data_report.assessment import digest_of
from fedmedclip.edge_client.data_report.report import FINDINGS, PAGE, findings_on, read_record, write_report
from fedmedclip.edge_client.data_report.survey import survey_of, with_forms
from fedmedclip.edge_client.features.labelled import ReadImages
from fedmedclip.edge_client.images.grouping import Grouping
from fedmedclip.edge_client.images.readers.settings import ReaderSettings
from fedmedclip.edge_client.images.split import SPLIT_FILE
from fedmedclip.protocol.visible import visible

log = logging.getLogger("fedmedclip.site")

FOLDER = "data-report"


class _Digest(msgspec.Struct):
    digest: str


def report_at_start(
    state_folder: Path, read: ReadImages, grouping: Grouping, settings: ReaderSettings
) -> None:
    """Write the report into the state folder, unless the one that is there is of the same data.

    Only the images that the page shows are decoded once more. A report that cannot be written keeps no site
    from starting: that is logged.
    """
    folder = state_folder / FOLDER
    survey = survey_of(read)
    record = read_record(state_folder / SPLIT_FILE)
    if _reported(folder) == digest_of(survey, grouping, record):
        return
    survey = with_forms(survey)
    findings, pairs = findings_on(survey, grouping, record)
    try:
        write_report(folder, findings, survey, pairs, grouping, settings)
    except OSError as error:
        log.warning("the data report cannot be written to %s (%s)", folder, error.strerror)
        return
    log.info(
        "data report, with images, for this site alone: %s; things to look at: %d",
        visible(folder / PAGE),
        len(findings.remarks),
    )


def _reported(folder: Path) -> str:
    """Return the digest of the report that is there, "" when there is none that can be read."""
    try:
        found = msgspec.json.decode((folder / FINDINGS).read_bytes(), type=_Digest)
    except (OSError, msgspec.MsgspecError):
        return ""
    return found.digest if (folder / PAGE).exists() else ""
