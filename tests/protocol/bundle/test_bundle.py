"""A bundle is opened whole and unchanged, or refused with one clear line."""

import hashlib
import io
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmedclip.protocol.bundle.bundle import (
    CLASS_EMBEDDINGS,
    IMAGE_ENCODER,
    MANIFEST,
    decode_manifest,
    open_bundle,
)
from fedmedclip.protocol.errors import BundleError

EMBEDDINGS = np.eye(2, 4, dtype=np.float32)


def npy(array: Any) -> bytes:
    encoded = io.BytesIO()
    np.save(encoded, array)
    return encoded.getvalue()


def manifest_of(files: dict[str, bytes]) -> dict[str, Any]:
    return {
        "format": 1,
        "model": "local-dir:tiny",
        "pretrained": "",
        "precision": "fp32",
        "embedding_size": 4,
        "logit_scale": 10.0,
        "class_names": ["ill", "well"],
        "prompts": {"templates": ["a {}."], "classes": {"ill": ["ill"], "well": ["well"]}},
        "preprocessing": {
            "height": 32,
            "width": 32,
            "resize_mode": "shortest",
            "interpolation": "bicubic",
            "fill_color": 0,
            "mean": [0.5, 0.5, 0.5],
            "standard_deviation": [0.5, 0.5, 0.5],
        },
        "parity": {
            "images": 1,
            "pixel_max_difference": 0,
            "embedding_max_abs_error": 0.0,
            "cosine_min": 1.0,
            "cosine_mean": 1.0,
            "tolerance": 1e-4,
        },
        "versions": {},
        "files": {name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
    }


def write_bundle(
    folder: Path,
    embeddings: bytes | None = None,
    change: Callable[[dict[str, Any]], object] = lambda manifest: None,
) -> Path:
    files = {IMAGE_ENCODER: b"onnx", CLASS_EMBEDDINGS: npy(EMBEDDINGS) if embeddings is None else embeddings}
    manifest = manifest_of(files)
    change(manifest)
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    (folder / MANIFEST).write_text(json.dumps(manifest))
    return folder


def test_opens_what_was_written(tmp_path: Path) -> None:
    bundle = open_bundle(write_bundle(tmp_path / "bundle"))
    np.testing.assert_array_equal(bundle.class_embeddings, EMBEDDINGS)
    assert bundle.manifest.class_names == ["ill", "well"]
    assert bundle.image_encoder.read_bytes() == b"onnx"
    assert bundle.digest == hashlib.sha256((tmp_path / "bundle" / MANIFEST).read_bytes()).digest()


def test_no_bundle_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="fedmedclip export"):
        open_bundle(tmp_path / "nothing")


@pytest.mark.parametrize("name", [IMAGE_ENCODER, CLASS_EMBEDDINGS])
def test_a_changed_file_is_refused(tmp_path: Path, name: str) -> None:
    path = write_bundle(tmp_path / "bundle") / name
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(BundleError, match=f"{name} has SHA-256"):
        open_bundle(tmp_path / "bundle")


@pytest.mark.parametrize("name", [IMAGE_ENCODER, CLASS_EMBEDDINGS])
def test_a_missing_file_is_refused(tmp_path: Path, name: str) -> None:
    (write_bundle(tmp_path / "bundle") / name).unlink()
    with pytest.raises(BundleError, match=f"{name} cannot be read"):
        open_bundle(tmp_path / "bundle")


@pytest.mark.parametrize("unknown", [0, 2, "1", None, [1]])
def test_an_unknown_format_is_refused_before_anything_else(tmp_path: Path, unknown: object) -> None:
    write_bundle(tmp_path / "bundle", change=lambda manifest: manifest.update(format=unknown, added="later"))
    with pytest.raises(BundleError, match="is not known"):
        open_bundle(tmp_path / "bundle")


@pytest.mark.parametrize(
    "name", ["../secret", "..", ".", "", "/etc/passwd", "a/b", "..\\secret", "C:secret", "a\0b"]
)
def test_files_outside_the_bundle_are_refused(tmp_path: Path, name: str) -> None:
    write_bundle(tmp_path / "bundle", change=lambda manifest: manifest["files"].update({name: "0" * 64}))
    with pytest.raises(BundleError, match="outside the bundle"):
        open_bundle(tmp_path / "bundle")


@pytest.mark.parametrize("name", [IMAGE_ENCODER, CLASS_EMBEDDINGS])
def test_a_file_without_a_hash_is_refused(tmp_path: Path, name: str) -> None:
    write_bundle(tmp_path / "bundle", change=lambda manifest: manifest["files"].pop(name))
    with pytest.raises(BundleError, match="does not name"):
        open_bundle(tmp_path / "bundle")


@pytest.mark.parametrize(
    "change",
    [
        lambda manifest: manifest.pop("logit_scale"),
        lambda manifest: manifest.update(precision="fp8"),
        lambda manifest: manifest.update(embedding_size=-4),
        lambda manifest: manifest.update(surprise=1),
        lambda manifest: manifest["preprocessing"].update(resize_mode="stretch"),
        lambda manifest: manifest["preprocessing"].update(mean=[0.5]),
    ],
)
def test_a_manifest_of_another_shape_is_damaged(
    tmp_path: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    write_bundle(tmp_path / "bundle", change=change)
    with pytest.raises(BundleError, match="is damaged"):
        open_bundle(tmp_path / "bundle")


@pytest.mark.parametrize("names", [["ill"], ["ill", "ill"], ["well", "ill"], ["ill", "well", "more"]])
def test_class_names_must_be_those_of_the_prompts(tmp_path: Path, names: list[str]) -> None:
    write_bundle(tmp_path / "bundle", change=lambda manifest: manifest.update(class_names=names))
    with pytest.raises(BundleError, match="prompts for"):
        open_bundle(tmp_path / "bundle")


ENCODED = json.dumps(manifest_of({IMAGE_ENCODER: b"", CLASS_EMBEDDINGS: b""})).encode()


@given(st.integers(0, len(ENCODED) - 1))
def test_a_truncated_manifest_is_refused(length: int) -> None:
    with pytest.raises(BundleError):
        decode_manifest(ENCODED[:length], Path(MANIFEST))


@given(
    st.binary(max_size=200) | st.sampled_from([b"[" * 100_000, b'{"a":' * 100_000, b"null", b"\xff\xfe{}"])
)
def test_anything_else_for_a_manifest_is_refused(encoded: bytes) -> None:
    with pytest.raises(BundleError):
        decode_manifest(encoded, Path(MANIFEST))


@pytest.mark.parametrize(
    ("embeddings", "complaint"),
    [
        (b"", "not a readable array"),
        (npy(EMBEDDINGS)[:-3], "not a readable array"),
        (npy(EMBEDDINGS.astype(np.float64)), "float64"),
        (npy(EMBEDDINGS.T.copy()), r"\(4, 2\)"),
        (npy(np.array([{}, {}], dtype=object)), "is object"),
        (npy(2 * EMBEDDINGS), "unit length"),
        (npy(EMBEDDINGS * np.nan), "unit length"),
        (npy(EMBEDDINGS).replace(b"(2, 4)", b"(9e99,"), "not a readable array"),
        (npy(EMBEDDINGS).replace(b"(2, 4), }      ", b"(99999999999,) }"), r"is float32 \(99999999999,\)"),
    ],
)
def test_class_embeddings_that_are_none_are_refused(
    tmp_path: Path, embeddings: bytes, complaint: str
) -> None:
    with pytest.raises(BundleError, match=complaint):
        open_bundle(write_bundle(tmp_path / "bundle", embeddings))


def test_an_archive_of_arrays_is_refused(tmp_path: Path) -> None:
    archive = io.BytesIO()
    np.savez(archive, EMBEDDINGS)
    with pytest.raises(BundleError, match="not a readable array"):
        open_bundle(write_bundle(tmp_path / "bundle", archive.getvalue()))


def test_what_a_header_or_a_limit_says_takes_no_memory(tmp_path: Path) -> None:
    """Neither the values that a header promises nor all that a manifest may have is allocated to be read."""
    header = npy(EMBEDDINGS).replace(b"(2, 4), }         ", b"(1048576, 2048), }")
    folder = write_bundle(tmp_path / "bundle", header)
    tracemalloc.start()
    try:
        with pytest.raises(BundleError, match=r"is float32 \(1048576, 2048\)"):
            open_bundle(folder)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 << 20


@pytest.mark.parametrize("encoded", [b'{"format\xec": 1}', b'{"format": 1, "model": "\xff"}', b"\xff"])
def test_a_manifest_that_is_not_utf8_is_damaged(encoded: bytes) -> None:
    with pytest.raises(BundleError, match="is damaged"):
        decode_manifest(encoded, Path(MANIFEST))


@settings(max_examples=200, deadline=None)
@given(position=st.integers(0, 127), replacement=st.binary(min_size=1, max_size=6))
def test_a_damaged_array_header_is_refused_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, position: int, replacement: bytes
) -> None:
    content = npy(EMBEDDINGS)
    damaged = content[:position] + replacement + content[position + len(replacement) :]
    folder = tmp_path_factory.mktemp("bundle")
    try:
        bundle = open_bundle(write_bundle(folder / "bundle", damaged))
    except BundleError:
        return
    assert bundle.class_embeddings.shape == EMBEDDINGS.shape
