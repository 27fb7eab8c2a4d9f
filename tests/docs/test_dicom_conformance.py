"""The conformance statement says what the DICOM door does."""

import re

from pydicom.uid import UID

from fedmedclip.edge_client.serving.dicom import association, identifiers, refusal, report, sop_classes
from fedmedclip.edge_client.serving.dicom.access import Access
from fedmedclip.edge_client.serving.dicom.settings import DicomSettings, Peer
from tests import ROOT

PAGE = (ROOT / "docs" / "reference" / "dicom-conformance.md").read_text(encoding="utf-8")


def rows(heading):
    """The rows of the table that begins with this heading row, cell by cell."""
    table = PAGE.partition(f"\n| {heading} |")[2].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in table]


def test_classes_and_syntaxes_are_those_of_the_node():
    named = [(UID(uid).name, f"`{uid}`") for uid in sop_classes.image_classes().values()]
    assert [tuple(row) for row in rows("SOP class | UID")] == named
    syntaxes = [(UID(uid).name, f"`{uid}`") for uid in sop_classes.transfer_syntaxes()]
    assert [tuple(row) for row in rows("transfer syntax | UID")] == syntaxes


def test_rejections_are_those_of_the_node():
    access = Access(DicomSettings(peers=[Peer("CT1")], most_associations=1))
    asked = [("CT1", "OTHER", 0), ("CT2", "FEDMEDCLIP", 0), ("CT1", "FEDMEDCLIP", 1)]
    found = [
        access.rejection(calling=calling, called=called, host="", open_now=count)
        for calling, called, count in asked
    ]
    said = [tuple(map(int, row[1:])) for row in rows("reason | result | source | diagnostic")]
    assert said == [(one.result, one.source, one.diagnostic) for one in found]


def test_statuses_numbers_and_codes_are_those_of_the_code():
    statuses = {0, refusal.OUT_OF_RESOURCES, refusal.NOT_OF_ITS_CLASS, refusal.NOT_UNDERSTOOD}
    assert {int(row[0].strip("`"), 16) for row in rows("status | when | comment")} == statuses
    settings = DicomSettings()
    for said in (
        f"`{identifiers.IMPLEMENTATION_CLASS_UID}`",
        f"{association.PDU_BYTES} bytes",
        f"{settings.most_associations} (`most_associations`)",
        f"{settings.port} unless",
        f"Series Number {report.SERIES_NUMBER}",
        f"`{report.SCHEME}`",
    ):
        assert said in PAGE
    assert len(identifiers.implementation_version()) <= 16


def test_codes_are_those_of_the_report():
    source = (ROOT / "edge_client" / "serving" / "dicom" / "report.py").read_text()
    codes = set(re.findall(r'own\("([a-z-]+)"', source))
    described = set(re.findall(r"`([a-z-]+)`", PAGE.partition("Others\nare")[2].split("\n\n")[0]))
    assert codes == described
