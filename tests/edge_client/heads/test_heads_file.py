import contextlib
import json
import os
import struct

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save

from fedmedclip.edge_client.heads.ensemble import EnsembleRule
from fedmedclip.edge_client.heads.heads_file import Heads, load_heads, save_heads
from fedmedclip.protocol import new_files
from fedmedclip.protocol.errors import HeadError
from fedmedclip.protocol.heads.head import head_digest
from tests.edge_client.heads.heads_examples import (
    CLASSES,
    SIZE,
    example_bundle,
    example_heads,
    with_assurance,
)

BUNDLE = example_bundle()


def example(**changes):
    shared, private = example_heads()
    values = {
        "method": "fedmedclip",
        "federation": "brain",
        "site": "hospital_0",
        "version": 10,
        "shared": shared,
        "private": private,
        "ensemble": EnsembleRule("calibrated", 0.7),
    }
    return Heads(**(values | changes))


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "heads.safetensors"
    save_heads(path, example(), BUNDLE)
    return path


@pytest.fixture
def assured(tmp_path):
    path = tmp_path / "assured.safetensors"
    save_heads(path, with_assurance(example(), BUNDLE), BUNDLE)
    return path


def rewrite(path, *, metadata=None, arrays=None):
    """Write the file again with other arrays, or with fields of its metadata changed."""
    content = path.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    found = json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["fedmedclip"])
    encoded = json.dumps(found | (metadata or {}))
    path.write_bytes(save(arrays or load(content), metadata={"fedmedclip": encoded}))


def assert_refused(path, match, bundle=BUNDLE):
    with pytest.raises(HeadError, match=match) as refusal:
        load_heads(path, bundle)
    assert "\n" not in str(refusal.value)
    assert str(path) in str(refusal.value)


def test_what_is_saved_is_loaded(saved):
    before, after = example(), load_heads(saved, BUNDLE)
    assert head_digest(after.shared) == head_digest(before.shared)
    assert head_digest(after.private) == head_digest(before.private)
    for name in ("method", "federation", "site", "version", "ensemble"):
        assert getattr(after, name) == getattr(before, name)


def test_an_assurance_travels_with_its_heads_and_makes_it_format_2(saved, assured):
    before, after = with_assurance(example(), BUNDLE).assurance, load_heads(assured, BUNDLE).assurance
    assert after.metadata == before.metadata
    assert head_digest(after.arrays) == head_digest(before.arrays)
    assert load_heads(saved, BUNDLE).assurance is None
    assert (b'\\"format\\":1' in saved.read_bytes(), b'\\"format\\":2' in assured.read_bytes()) == (
        True,
        True,
    )
    save_heads(saved, with_assurance(example(), BUNDLE), BUNDLE)
    assert saved.read_bytes() == assured.read_bytes()


def changed(metadata, name, value):
    """Return the assurance with a field of it, or of one inside as `novelty.threshold`, changed."""
    *outer, last = name.split(".")
    copy = json.loads(json.dumps(metadata))
    inner = copy[outer[0]] if outer else copy
    inner[last] = value
    return copy


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("level", 1.0),
        ("kind", "magic"),
        ("images", 0),
        ("thresholds", [0.5]),
        ("thresholds", [0.5] * (CLASSES - 1) + [-1]),
        ("reference.directions", 65),
        ("reference.directions", 3),
        ("reference.elsewhere", 1e300),
        ("novelty.threshold", 0),
        ("novelty.elsewhere", 1e-300),
        ("novelty.means", CLASSES + 1),
        ("novelty.means", 1 << 40),
        ("novelty", None),
    ],
)
def test_an_altered_assurance(assured, name, value):
    content = assured.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    metadata = json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["fedmedclip"])
    rewrite(assured, metadata={"assurance": changed(metadata["assurance"], name, value)})
    assert_refused(assured, "heads file")


def test_an_assurance_is_not_left_out_unnoticed(assured):
    rewrite(assured, metadata={"assurance": None})
    assert_refused(assured, "format 2 does not fit")
    rewrite(assured, metadata={"assurance": None, "format": 1})
    assert_refused(assured, "arrays are not the method's")


def test_shared_head_alone(tmp_path):
    path = tmp_path / "heads.safetensors"
    save_heads(path, example(private=None), BUNDLE)
    assert load_heads(path, BUNDLE).private is None


def test_saving_again_replaces_the_file_and_leaves_nothing_else(saved):
    save_heads(saved, example(version=11), BUNDLE)
    assert load_heads(saved, BUNDLE).version == 11
    assert os.listdir(saved.parent) == [saved.name]


def test_equal_heads_give_equal_files(saved, tmp_path):
    save_heads(tmp_path / "again", example(), BUNDLE)
    assert (tmp_path / "again").read_bytes() == saved.read_bytes()


def test_failed_write_keeps_the_earlier_file(saved, monkeypatch):
    def full_disk(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(new_files.os, "fsync", full_disk)
    with pytest.raises(HeadError, match="No space left on device"):
        save_heads(saved, example(version=11), BUNDLE)
    assert load_heads(saved, BUNDLE).version == 10
    assert os.listdir(saved.parent) == [saved.name]


def test_folder_that_does_not_exist(tmp_path):
    with pytest.raises(HeadError, match="cannot write heads file"):
        save_heads(tmp_path / "nowhere" / "heads", example(), BUNDLE)


def test_heads_of_another_bundle(saved):
    assert_refused(saved, "belong to bundle 111111111111.*222222222222", example_bundle(digest=b"\x22" * 32))


def test_missing_file_and_folder(tmp_path):
    assert_refused(tmp_path / "nothing", "No such file")
    assert_refused(tmp_path, "cannot read heads file")


@pytest.mark.parametrize("kept", [0, 3, 8, 200, -1])
def test_truncated_file(saved, kept):
    saved.write_bytes(saved.read_bytes()[:kept])
    assert_refused(saved, "heads file")


def test_huge_header(saved):
    saved.write_bytes(struct.pack("<Q", 1 << 40) + saved.read_bytes()[8:])
    assert_refused(saved, "header would be 1099511627776 bytes")


def test_trailing_bytes(saved):
    saved.write_bytes(saved.read_bytes() + b"more")
    assert_refused(saved, "damaged")


def test_not_a_heads_file(saved, tmp_path):
    saved.write_bytes(save({"weight": np.zeros(3, np.float32)}))
    assert_refused(saved, "not written by fedmedclip")
    saved.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(1000))
    assert_refused(saved, "header")


@pytest.mark.parametrize(
    ("metadata", "match"),
    [
        ({"format": 3}, "format 3 is not known"),
        ({"format": 2}, "format 2 does not fit"),
        ({"format": None}, "format None is not known"),
        ({"method": "fedmagic"}, "unknown method 'fedmagic'"),
        ({"version": -1}, "metadata is damaged"),
        ({"extra": 1}, "metadata is damaged"),
        ({"class_names": ["a"] * CLASSES}, "class names differ"),
        ({"bundle_digest": "zz"}, "metadata is damaged"),
        ({"ensemble": {"kind": "magic"}}, "metadata is damaged"),
        ({"ensemble": {"kind": "calibrated", "weight": 7}}, "must be from 0 to 1"),
        ({"site": "x" * 300}, "metadata is damaged"),
    ],
)
def test_altered_metadata(saved, metadata, match):
    rewrite(saved, metadata=metadata)
    assert_refused(saved, match)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda a: a.pop("shared.first.bias"), "arrays are not the method's"),
        (lambda a: a.pop("private.linear1.bias"), "arrays are not the method's"),
        (lambda a: a.update({"extra": np.zeros(2, np.float32)}), "arrays are not the method's"),
        (lambda a: a.update({"shared.first.bias": np.zeros(SIZE + 1, np.float32)}), r"\(25,\)"),
        (lambda a: a.update({"shared.first.bias": np.zeros(SIZE, np.float64)}), "F64"),
        (lambda a: a["private.norm1.running_var"].fill(np.nan), "NaN"),
        (lambda a: a["shared.first.weight"].fill(np.inf), "infinite"),
    ],
)
def test_altered_arrays(saved, change, match):
    arrays = {name: array.copy() for name, array in load(saved.read_bytes()).items()}
    change(arrays)
    rewrite(saved, arrays=arrays)
    assert_refused(saved, match)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damaged_header_never_crashes(saved, data):
    content = bytearray(saved.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, 1500))] = data.draw(st.integers(0, 255))
    damaged = saved.with_name("damaged")
    damaged.write_bytes(content)
    with contextlib.suppress(HeadError):
        assert load_heads(damaged, BUNDLE).shared.keys() == example().shared.keys()
