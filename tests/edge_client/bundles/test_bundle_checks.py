"""`fedmedclip bundle`, and the self-test that keeps a box that computes something else out."""

import hashlib
import os

import msgspec
import numpy as np
import pytest

from fedmedclip.edge_client.bundles.report import show, sign, verify
from fedmedclip.edge_client.features.encoder import Encoder
from fedmedclip.edge_client.features.self_test import PASSED_FILE, require_self_test_once, run_self_test
from fedmedclip.protocol.bundle.bundle import MANIFEST, open_bundle
from fedmedclip.protocol.bundle.self_test import (
    SELF_TEST_EMBEDDINGS,
    SELF_TEST_IMAGES,
    compare,
    encode_array,
    read_self_test,
)
from fedmedclip.protocol.bundle.signature import SIGNATURE_FILE, signer
from fedmedclip.protocol.errors import BundleError, InvalidInputError


def add_self_test(bundle, change=lambda embeddings: embeddings, images=None):
    """Put golden inputs into a bundle, after `change`, and return it opened again."""
    preprocessing = bundle.manifest.preprocessing
    if images is None:
        shape = (2, preprocessing.height, preprocessing.width, 3)
        images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        with Encoder(bundle) as encoder:
            embeddings = change(encoder.encode(images))
    else:
        embeddings = np.zeros((len(images), bundle.manifest.embedding_size), np.float32)
    contents = {SELF_TEST_IMAGES: encode_array(images), SELF_TEST_EMBEDDINGS: encode_array(embeddings)}
    files = dict(bundle.manifest.files)
    for name, content in contents.items():
        (bundle.folder / name).write_bytes(content)
        files[name] = hashlib.sha256(content).hexdigest()
    manifest = msgspec.structs.replace(bundle.manifest, files=files)
    (bundle.folder / MANIFEST).write_bytes(msgspec.json.encode(manifest))
    return open_bundle(bundle.folder)


def test_the_same_machine_passes(tmp_path, make_bundle):
    bundle = add_self_test(make_bundle(tmp_path / "bundle"))
    agreement = run_self_test(bundle)
    assert agreement.passed
    assert agreement.max_abs_error == 0
    assert "passed" in dict(verify(bundle.folder, None))["self-test"]


def test_a_machine_that_computes_something_else_does_not_join(tmp_path, make_bundle):
    bundle = add_self_test(make_bundle(tmp_path / "bundle"), lambda embeddings: embeddings[:, ::-1].copy())
    with pytest.raises(BundleError, match=r"failed on this machine.*fedmedclip doctor"):
        require_self_test_once(bundle, tmp_path)
    assert not (tmp_path / PASSED_FILE).exists()
    with pytest.raises(BundleError, match="failed"):
        verify(bundle.folder, None)


def test_a_passed_test_is_not_run_again(tmp_path, make_bundle):
    bundle = add_self_test(make_bundle(tmp_path / "bundle"))
    assert require_self_test_once(bundle, tmp_path)
    assert not require_self_test_once(bundle, tmp_path)
    changed = add_self_test(make_bundle(tmp_path / "bundle", seed=1))
    assert require_self_test_once(changed, tmp_path)


def test_a_bundle_without_a_self_test_may_join(tmp_path, tiny_bundle):
    assert run_self_test(tiny_bundle) is None
    assert not require_self_test_once(tiny_bundle, tmp_path)
    assert "older version" in dict(verify(tiny_bundle.folder, None))["self-test"]


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((2, 24, 31, 3), np.uint8),
        np.zeros((2, 24, 32, 3), np.float32),
        np.zeros((0, 24, 32, 3), np.uint8),
        np.zeros((17, 24, 32, 3), np.uint8),
    ],
)
def test_a_self_test_of_another_shape_is_refused(tmp_path, make_bundle, images):
    bundle = add_self_test(make_bundle(tmp_path / "bundle"), images=images)
    with pytest.raises(BundleError, match="export the bundle again"):
        read_self_test(bundle)


def test_tolerances_part_noise_from_damage():
    rows = np.eye(2, 64, dtype=np.float32)
    tilted = np.sqrt([1 - 0.02, 0.02]).astype(np.float32)  # cosine 0.99
    damaged = np.zeros_like(rows)
    damaged[0, :2] = tilted
    damaged[1, 1:3] = tilted
    assert compare(rows, rows + np.float32(1e-6), "fp32").passed
    assert not compare(rows, rows + np.float32(2e-3), "fp32").passed
    assert compare(rows, rows + np.float32(2e-3), "int8").passed
    assert not compare(rows, damaged, "int8").passed
    for precision in ("fp32", "int8"):
        assert not compare(rows, rows * np.nan, precision).passed


def test_a_signature_names_who_vouches(tmp_path, make_bundle):
    bundle = make_bundle(tmp_path / "bundle")
    assert signer(bundle.folder) is None
    with pytest.raises(BundleError, match="not signed"):
        verify(bundle.folder, "0" * 64)
    public = dict(sign(bundle.folder, tmp_path / "key"))["public key"]
    assert dict(verify(bundle.folder, public))["signature"].endswith(public)
    (tmp_path / "public").write_text(public + "\n")
    verify(bundle.folder, str(tmp_path / "public"))
    (tmp_path / "public").write_bytes(b"\xef\xbb\xbf" + public.encode() + b"\r\n")
    verify(bundle.folder, str(tmp_path / "public"))
    assert open_bundle(bundle.folder).digest == bundle.digest
    assert dict(show(bundle.folder))["signed by"].startswith(public)
    with pytest.raises(BundleError, match="do not use it"):
        verify(bundle.folder, "0" * 64)
    with pytest.raises(InvalidInputError, match="64 hexadecimal"):
        verify(bundle.folder, "centre")


def test_a_changed_manifest_breaks_the_signature(tmp_path, make_bundle):
    bundle = make_bundle(tmp_path / "bundle")
    sign(bundle.folder, tmp_path / "key")
    path = bundle.folder / MANIFEST
    path.write_bytes(path.read_bytes() + b"\n")
    with pytest.raises(BundleError, match="is not that of this manifest"):
        verify(bundle.folder, None)
    (bundle.folder / SIGNATURE_FILE).write_bytes(b"short")
    with pytest.raises(BundleError, match="is not that of this manifest"):
        show(bundle.folder)


def test_show_says_what_it_is(tiny_bundle):
    rows = dict(show(tiny_bundle.folder))
    assert rows["sha256"] == tiny_bundle.digest.hex()
    assert rows["class glioma"] == "glioma"
    assert "32 x 24" in rows["images"]
    assert rows["signed by"] == "nobody"


@pytest.mark.parametrize("name", [MANIFEST, SIGNATURE_FILE, "image_encoder.onnx", "class_embeddings.npy"])
@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_what_is_no_file_in_a_bundle_is_refused_at_once(tmp_path, make_bundle, name, kind):
    bundle = make_bundle(tmp_path / "bundle")
    path = bundle.folder / name
    path.unlink(missing_ok=True)
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/zero")
        case _:
            path.mkdir()
    words = {
        "pipe": "a named pipe, not a file",
        "device": "a device, not a file",
        "folder": "folder|irectory",
    }
    with pytest.raises(BundleError, match=words[kind]):
        show(bundle.folder)
