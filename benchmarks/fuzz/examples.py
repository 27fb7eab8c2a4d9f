"""Valid artefacts, from which inputs are made: the golden files, keys, a small bundle."""

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedmedclip.edge_client.features.references import encode_reference, quantised
from fedmedclip.edge_client.heads.layers import unit_rows
from fedmedclip.protocol.bundle.bundle import (
    CLASS_EMBEDDINGS,
    IMAGE_ENCODER,
    MANIFEST,
    REFERENCE_FILE,
    ClassPrompts,
    Manifest,
    Parity,
    Preprocessing,
)
from fedmedclip.protocol.bundle.self_test import SELF_TEST_EMBEDDINGS, SELF_TEST_IMAGES, encode_array
from fedmedclip.protocol.heads.head import HeadSpecification, TensorSpecification
from fedmedclip.protocol.signature import SigningKey

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden"
SIZE = 12
CLASSES = ("no_tumor", "tumor", "other")


@cache
def golden() -> dict[str, Any]:
    """Return what `tests/golden/manifest.json` says of each golden file."""
    content: dict[str, Any] = json.loads((GOLDEN / "manifest.json").read_bytes())
    return content


def golden_file(name: str) -> bytes:
    """Return the bytes of a golden file."""
    return (GOLDEN / name).read_bytes()


@cache
def key(who: str) -> SigningKey:
    """Return the golden key of `site` or `aggregator`."""
    raw = bytes.fromhex(golden()["keys"][who]["private"])
    return SigningKey(Ed25519PrivateKey.from_private_bytes(raw))


def identity() -> bytes:
    """Return the identity of the golden plan."""
    return bytes.fromhex(golden()["identity"])


@cache
def specifications() -> tuple[HeadSpecification, ...]:
    """Return the specifications of the golden heads, each once."""
    found = dict.fromkeys(_specification(entry["specification"]) for entry in golden()["heads"])
    return tuple(found)


def specification_of(entry: dict[str, Any]) -> HeadSpecification:
    """Return the specification of one golden head."""
    return _specification(entry["specification"])


def _specification(shapes: list[list[Any]]) -> HeadSpecification:
    return HeadSpecification(
        tuple(
            TensorSpecification(name, tuple(shape), symmetric="symmetric" in marks)
            for name, shape, *marks in shapes
        )
    )


def rows(count: int, size: int = SIZE) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return unit rows, float32 (count, size)."""
    return unit_rows(np.random.default_rng(count).normal(size=(count, size)).astype(np.float32))


@cache
def bundle_files() -> dict[str, bytes]:
    """Return the files of a small bundle by name; its encoder is none, which nothing here runs."""
    reference = encode_reference(quantised(rows(4)))
    images = np.zeros((2, 8, 8, 3), np.uint8)
    files = {
        IMAGE_ENCODER: b"no encoder",
        CLASS_EMBEDDINGS: encode_array(rows(len(CLASSES))),
        SELF_TEST_IMAGES: encode_array(images),
        SELF_TEST_EMBEDDINGS: encode_array(rows(2)),
        REFERENCE_FILE: reference,
    }
    manifest = Manifest(
        format=1,
        model="example",
        pretrained="",
        precision="fp32",
        embedding_size=SIZE,
        logit_scale=12.5,
        class_names=list(CLASSES),
        prompts=ClassPrompts(["a {}"], {name: [name.replace("_", " ")] for name in CLASSES}),
        preprocessing=Preprocessing(
            8, 8, "shortest", "bicubic", 0, mean=(0.5, 0.5, 0.5), standard_deviation=(0.5, 0.5, 0.5)
        ),
        parity=Parity(1, 0, 0.0, 1.0, 1.0, 1e-4),
        versions={"open_clip": "3"},
        files={name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
    )
    return {MANIFEST: msgspec.json.encode(manifest), **files}


def write_bundle(folder: Path) -> None:
    """Write the small bundle into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in bundle_files().items():
        (folder / name).write_bytes(content)
