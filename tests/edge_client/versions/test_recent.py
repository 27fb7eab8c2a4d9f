"""The embeddings of recent images: bounded in number and age, and nothing else of an image."""

import os
import stat
import time

import numpy as np
import pytest
from safetensors.numpy import load_file

from fedmedclip.edge_client.versions import recent as module
from fedmedclip.edge_client.versions.recent import RecentImages, recent_embeddings

BUNDLE = bytes(range(32))
DAY = 86400.0


@pytest.fixture
def path(tmp_path):
    (tmp_path / "versions").mkdir()
    return tmp_path / "recent.safetensors"


def note(path, numbers, most=4, days=8.0, bundle=BUNDLE):
    images = RecentImages(path, bundle, most, days)
    for number in numbers:
        images.note(np.full(3, number, np.float32))
    images.save()
    return images


def kept(path, bundle=BUNDLE, size=3):
    return recent_embeddings(path, bundle, size)[:, 0].tolist()


def test_the_last_are_kept_over_restarts_for_the_owner_only_with_nothing_else(path):
    note(path, [1, 2, 3])
    note(path, [4, 5])
    assert kept(path) == [2, 3, 4, 5]
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    arrays = load_file(path)
    assert set(arrays) == {"bundle", "since", "embeddings"}
    assert (arrays["since"] % (2 * DAY) == 0).all()  # a quarter of the retention, and no time
    assert recent_embeddings(path, BUNDLE, 4).shape == (0, 4)
    assert kept(path, bytes(32)) == []


def test_what_is_old_is_erased_and_what_is_not_wanted_leaves_no_file(path, monkeypatch):
    now = time.time()
    note(path, [1])
    monkeypatch.setattr(module.time, "time", lambda: now + 5 * DAY)
    images = note(path, [2])
    assert kept(path) == [1, 2]
    monkeypatch.setattr(module.time, "time", lambda: now + 8.1 * DAY)
    images.save()
    assert kept(path) == [2]
    note(path, [], most=0)
    assert not path.exists()
    note(path, [3], most=0)
    assert not path.exists()


def test_nothing_is_kept_where_no_site_tries_versions(tmp_path):
    note(tmp_path / "recent.safetensors", [1, 2])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"\x08" + bytes(20), os.urandom(200)])
def test_a_damaged_file_is_said_and_begun_anew(path, content, caplog):
    path.write_bytes(content)
    assert kept(path) == []
    assert "cannot be used" in caplog.text
    note(path, [7])
    assert kept(path) == [7]


def test_a_disk_that_cannot_be_written_is_said_once_and_tried_again(path, caplog, monkeypatch):
    def refuse(*arguments, **options):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(module, "write_new_file", refuse)
        images = note(path, [1])
        images.save()
    assert caplog.text.count("recent images are not kept") == 1
    images.save()
    assert kept(path) == [1]
