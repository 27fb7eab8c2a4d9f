"""A site's start leaves the report in its state folder, and makes it again only when its data changed."""

import json
import logging
import stat

import pytest

from fedmedclip.edge_client.data_report import at_start
from fedmedclip.edge_client.data_report.at_start import FOLDER, report_at_start
from fedmedclip.edge_client.data_report.report import FINDINGS, PAGE
from fedmedclip.edge_client.features.feature_store import FeatureStore
from fedmedclip.edge_client.features.labelled import load_site_features
from fedmedclip.edge_client.images.readers.settings import DEFAULT_READING


@pytest.fixture
def start(tmp_path, odd_files, tiny_bundle):
    """Read the data as a site does, and report; return whether a report was made."""
    state = tmp_path / "state"
    state.mkdir(mode=0o700)

    def begin():
        page = state / FOLDER / PAGE
        before = page.stat().st_ino if page.exists() else None
        with FeatureStore(state / "features.db") as store:
            found = load_site_features(odd_files, tiny_bundle, store, state / "split.csv", 1)
        report_at_start(state, found.read, found.grouping, DEFAULT_READING)
        return page.exists() and page.stat().st_ino != before

    return state, begin


def test_made_once_and_again_for_changed_data(start, odd_files, monkeypatch):
    state, begin = start
    assert begin()
    folder = state / FOLDER
    assert stat.S_IMODE((folder / PAGE).stat().st_mode) == 0o600
    assert stat.S_IMODE((folder / FINDINGS).stat().st_mode) == 0o600
    found = json.loads((folder / FINDINGS).read_bytes())
    assert {pair["second"] for pair in found["across"]} == {"healthy/brighter.png"}
    assert found["sizes"]["forms"]["DICOM, 12-bit grey"] == 1
    assert found["split"]["unrecorded"] == 0
    assert found["split"]["groups_in_two_parts"] == 0
    assert "stroke" in [one["name"] for one in found["classes"]]

    with monkeypatch.context() as patch:
        # Not even a header is looked at.
        patch.setattr(at_start, "with_forms", None)
        assert not begin()
    (odd_files / "healthy" / "brighter.png").rename(odd_files / "glioma" / "brighter.png")
    assert begin()
    assert not json.loads((folder / FINDINGS).read_bytes())["across"]
    (folder / PAGE).unlink()
    assert begin()
    (folder / FINDINGS).write_bytes(b"\xff")
    assert begin()


def test_what_cannot_be_written_keeps_no_site_from_starting(start, caplog):
    state, begin = start
    (state / FOLDER).write_text("in the way")
    with caplog.at_level(logging.WARNING, "fedmedclip"):
        assert not begin()
    assert "the data report cannot be written" in caplog.text
