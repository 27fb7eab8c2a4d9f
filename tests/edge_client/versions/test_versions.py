"""The versions that are kept, and which one answers: by hand, as a file, damaged, for several at a time."""

import json
import os
import threading

import pytest

from fedmedclip.edge_client.heads.heads_file import load_heads, save_heads
from fedmedclip.edge_client.versions.versions import Versions
from fedmedclip.protocol.errors import InvalidInputError, StorageError
from tests.edge_client.heads.heads_examples import example_bundle
from tests.edge_client.versions.version_examples import BUNDLE, content, heads, keep, record


def answering(state):
    return load_heads(state / "heads.safetensors", BUNDLE).version


def test_an_operator_goes_back_step_by_step_and_forward_again(tmp_path):
    versions = keep(tmp_path, 1, 2, 3)
    assert [found.name for found in versions.listing() if found.active] == ["1:3"]
    assert versions.rollback("page").name == "1:2"
    assert (answering(tmp_path), versions.listing()[2].verdict) == (2, "left")
    assert versions.rollback("page").name == "1:1"
    with pytest.raises(InvalidInputError, match="no version that can be used was active before"):
        versions.rollback("page")
    assert versions.activate("3", "page").by == "page"
    assert (answering(tmp_path), versions.active().verdict) == (3, "by hand")
    assert versions.rollback("page").name == "1:1"
    assert versions.activate("1", "page").active  # it is already


def test_a_name_is_a_version_of_the_newest_run_that_has_it_or_names_the_run(tmp_path):
    keep(tmp_path, 1, 2, run=1)
    versions = keep(tmp_path, 1, run=2)
    assert [versions.activate(name, "x").name for name in ("2", "1", "1:1", "2:1")] == [
        "1:2",
        "2:1",
        "1:1",
        "2:1",
    ]
    for name, words in (("9", "no version 9 is kept here; there are: 1:1, 1:2, 1"), ("../1", "names no")):
        with pytest.raises(InvalidInputError, match=words):
            versions.activate(name, "x")


def test_the_heads_of_an_earlier_state_folder_are_taken_over(tmp_path):
    assert Versions(tmp_path).listing() == []
    assert list(tmp_path.iterdir()) == []
    save_heads(tmp_path / "heads.safetensors", heads(5), BUNDLE)
    before = (tmp_path / "heads.safetensors").read_bytes()
    [found] = Versions(tmp_path).listing()
    assert (found.version, found.verdict, found.active, found.run) == (5, "taken over", True, 0)
    assert (tmp_path / "heads.safetensors").read_bytes() == before


def test_heads_that_somebody_puts_there_as_a_file_become_a_version_and_known_ones_active(tmp_path):
    versions = keep(tmp_path, 1, 2, 3)
    save_heads(tmp_path / "heads.safetensors", heads(9), BUNDLE)
    versions.look()
    assert (versions.active().name, versions.active().verdict) == ("0:9", "taken over")
    (tmp_path / "heads.safetensors").write_bytes(content(1))
    versions.look()
    assert versions.active().name == "1:1"
    assert len(versions.listing()) == 4


def test_a_damaged_version_is_named_passed_over_and_made_whole_where_there_is_a_copy(tmp_path, caplog):
    versions = keep(tmp_path, 1, 2, 3)
    one, two, three = (tmp_path / "versions" / found.file for found in versions.listing())
    for path in (two, three):
        path.write_bytes(path.read_bytes()[:-1])
    assert set(versions.faults()) == {"1:2", "1:3"}
    with pytest.raises(InvalidInputError, match=r"version 1:2: .* is damaged: its checksum"):
        versions.activate("2", "x")
    assert set(versions.faults()) == {"1:2"}  # of the active one there was a copy
    assert versions.rollback("x").name == "1:1"
    assert "is damaged" in caplog.text
    # Now the active one, and the heads file too.
    versions.activate("3", "x")
    three.unlink()
    (tmp_path / "heads.safetensors").write_bytes(b"nothing")
    versions.look()
    assert answering(tmp_path) == 1
    assert one.exists()


def test_a_damaged_record_is_made_anew_of_the_files(tmp_path, caplog):
    versions = keep(tmp_path, 1, 2)
    catalogue = tmp_path / "versions" / "versions.json"
    catalogue.write_bytes(catalogue.read_bytes().replace(b'"rule"', b'"ruin"'))
    found = versions.listing()
    assert [(record.name, record.verdict, record.active) for record in found] == [
        ("1:1", "not judged", False), ("1:2", "not judged", True),
    ]  # fmt: skip
    assert "is damaged" in caplog.text
    assert versions.activate("1", "x").active
    later = json.loads(catalogue.read_text()) | {"format": 2}
    catalogue.write_text(json.dumps(later))
    with pytest.raises(StorageError, match="of format 2, this version reads 1; update"):
        versions.listing()


def test_versions_of_another_bundle_cannot_be_made_active(tmp_path):
    versions = keep(tmp_path, 1, 2)
    with versions.held() as held:
        held.catalogue.bundle = example_bundle(digest=b"\x22" * 32).digest.hex()
        held.changed = True
    with pytest.raises(InvalidInputError, match="belongs to bundle 111111111111, and this site has 2222"):
        versions.activate("1", "x")
    with pytest.raises(InvalidInputError, match="no version that can be used"):
        versions.rollback("x")


def test_the_newest_are_kept_and_those_that_were_active(tmp_path):
    versions = keep(tmp_path, 1)
    for version in range(2, 12):
        with versions.held() as held:
            held.put(record(version), content(version))
            held.catalogue.prune(3)
    assert [found.version for found in versions.listing()] == [1, 9, 10, 11]
    assert len(list((tmp_path / "versions").glob("*.safetensors"))) == 4


def test_several_at_a_time_leave_one_of_their_choices(tmp_path):
    keep(tmp_path, 1, 2, 3, 4)

    def choose(name):
        for _ in range(4):
            Versions(tmp_path).activate(name, name)
            Versions(tmp_path).rollback(name)
            Versions(tmp_path).activate(name, name)

    threads = [threading.Thread(target=choose, args=(str(version),)) for version in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    active = Versions(tmp_path).active()
    assert active.by in {"1", "2", "3"}
    assert answering(tmp_path) == active.version
    assert not Versions(tmp_path).faults()


def test_what_raises_while_versions_are_held_leaves_nothing(tmp_path):
    versions = keep(tmp_path, 1)

    def fail():
        with versions.held() as held:
            held.activate(held.put(record(2), content(2)))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert [found.version for found in versions.listing()] == [1]
    assert answering(tmp_path) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_root_changes_still_belongs_to_the_service(tmp_path):
    os.chown(tmp_path, 1234, 1234)
    keep(tmp_path, 1, 2).rollback("x")
    files = [tmp_path / "heads.safetensors", tmp_path / "versions", *(tmp_path / "versions").iterdir()]
    assert {(path.stat().st_uid, path.stat().st_gid) for path in files} == {(1234, 1234)}
