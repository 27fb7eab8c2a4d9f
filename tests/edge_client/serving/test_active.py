"""The heads that answer are those in the file, as soon as they can be used."""

import logging
import os

import pytest

from fedmedclip.edge_client.features.encoder import Encoder
from fedmedclip.edge_client.heads.heads_file import Heads, save_heads
from fedmedclip.edge_client.serving.active import ActiveClassifier
from fedmedclip.protocol.heads.shared_heads import initial_shared_head
from fedmedclip.protocol.signature import new_signing_key
from fedmedclip.protocol.trust.decision import Trust
from tests.edge_client.conftest import EMBEDDING_SIZE

KEY = new_signing_key()


@pytest.fixture(scope="module")
def encoder(tiny_bundle):
    with Encoder(tiny_bundle, 1) as opened:
        yield opened


def save(path, bundle, version, key=KEY):
    shared = initial_shared_head("fedmedclip", EMBEDDING_SIZE, 1)
    save_heads(path, Heads("fedmedclip", shared, None, "trial", "site-a", version), bundle, key)


@pytest.fixture
def trusted():
    """The keys that are trusted."""
    return {KEY.public_key}


@pytest.fixture
def active(tmp_path, tiny_bundle, encoder, trusted):
    path = tmp_path / "heads.safetensors"
    return ActiveClassifier(tiny_bundle, encoder, path, lambda: Trust(frozenset(trusted), "user"))


def test_nobody_is_answered_until_there_are_heads_and_then_each_newer_version_answers(
    active, tmp_path, tiny_bundle
):
    assert active.classifier() is None
    assert "heads.safetensors" in active.fault
    for version in (3, 4):
        save(tmp_path / "heads.safetensors", tiny_bundle, version)
        active.refresh()
        assert active.wait().provenance.head_version == version
        assert active.fault == ""
    os.utime(tmp_path / "heads.safetensors", (1e9, 1e9))
    active.refresh()
    settled = active.classifier()
    active.refresh()
    assert active.classifier() is settled


@pytest.mark.parametrize("ruin", ["garbage", "stranger", "gone"])
def test_heads_that_cannot_be_used_leave_those_before_answering_and_that_is_said_once(
    active, tmp_path, tiny_bundle, caplog, ruin
):
    caplog.set_level(logging.INFO, "fedmedclip.serve")
    path = tmp_path / "heads.safetensors"
    save(path, tiny_bundle, 3)
    os.utime(path, (1e9, 1e9))
    active.refresh()
    if ruin == "garbage":
        path.write_bytes(b"\x08" + bytes(20))
        os.utime(path, (1e9, 1e9))
    elif ruin == "stranger":
        save(path, tiny_bundle, 4, new_signing_key())
        os.utime(path, (1e9, 1e9))
    else:
        path.unlink()
    for _ in range(3):
        active.refresh()
    assert active.classifier().provenance.head_version == 3
    assert caplog.text.count("the heads before go on answering") == 1
    assert active.fault
    save(path, tiny_bundle, 5)
    active.refresh()
    assert active.classifier().provenance.head_version == 5
    assert active.fault == ""


def test_who_waits_for_heads_is_let_go_at_the_end(active):
    active.end()
    assert active.wait() is None


def test_heads_whose_key_is_trusted_later_are_taken_up_then(active, tmp_path, tiny_bundle, trusted):
    save(tmp_path / "heads.safetensors", tiny_bundle, 3, stranger := new_signing_key())
    active.refresh()
    assert "is signed by" in active.fault
    trusted.add(stranger.public_key)
    for _ in range(20):
        active.refresh()
    assert active.classifier().provenance.head_version == 3
