"""The work itself: how fast images are encoded, whether rightly, what is stored."""

import sqlite3
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np

from fedmedclip.edge_client.doctor.finding import Finding, bad, good, note
from fedmedclip.edge_client.features.provider_choice import open_encoder
from fedmedclip.edge_client.features.providers import (
    PROCESSOR,
    PROCESSOR_ALONE,
    available_providers,
    runtime_versions,
    wanted_providers,
)
from fedmedclip.edge_client.features.self_test import run_self_test
from fedmedclip.edge_client.images.dataset import load_dataset
from fedmedclip.edge_client.images.opening import UnreadableImageError, read_identified
from fedmedclip.edge_client.images.readers.settings import ReaderSettings
from fedmedclip.edge_client.images.split import PARTS, leak_of, read_split
from fedmedclip.protocol.bundle.bundle import Bundle
from fedmedclip.protocol.bundle.self_test import demanded
from fedmedclip.protocol.errors import FedMedClipError, InvalidInputError

_SECONDS = 1.0
_NEEDED_OF_A_CLASS = 2
# Multiplications and additions of a ViT-B/32 for one image, in units of 10^9.
_VIT_B_32_GIGAFLOPS = 8.8
_MATRIX = 512


def providers(names: Sequence[str] = PROCESSOR_ALONE) -> Finding:
    """Say what ONNX Runtime can compute with on this machine, and whether what is wanted is there.

    Raises InvalidInputError for a name that ONNX Runtime does not know.
    """
    available = available_providers()
    words = f"{runtime_versions()}: {', '.join(available)}"
    if absent := [wanted.name for wanted in wanted_providers(names) if wanted.name not in available]:
        return note("providers", words, f"install a build of ONNX Runtime that has {', '.join(absent)}")
    return good("providers", words)


def speed(bundle: Bundle | None, threads: int | None, names: Sequence[str] = PROCESSOR_ALONE) -> Finding:
    """Measure for about a second: the bundle's encoder, or without a bundle a matrix product.

    `names` are the wanted execution providers.
    """
    if bundle is None:
        rate = _gigaflops() / _VIT_B_32_GIGAFLOPS
        return note("speed", f"about {rate:.1f} images/s of a ViT-B/32 in fp32, by a matrix product alone")
    preprocessing = bundle.manifest.preprocessing
    shape = (4, preprocessing.height, preprocessing.width, 3)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    done = 0
    with open_encoder(bundle, threads, names) as encoder:
        encoder.encode(images)
        started = time.perf_counter()
        while (seconds := time.perf_counter() - started) < _SECONDS:
            encoder.encode(images)
            done += len(images)
    rate = done / seconds
    on = "" if encoder.provider == PROCESSOR.name else f" on {encoder.provider}"
    words = f"{rate:.1f} images/s{on}; 1,000 images take {1000 / rate / 60:.1f} minutes, once"
    return good("speed", words) if rate >= 1 else note("speed", words, "ask for a smaller model, or int8")


def self_test(bundle: Bundle, threads: int | None, names: Sequence[str] = PROCESSOR_ALONE) -> Finding:
    """Compare with what the exporting machine computed, on the first of the providers that can be used."""
    agreement = run_self_test(bundle, threads, names)
    if agreement is None:
        return note("self-test", "the bundle has none; it was exported by an older version")
    words = agreement.words()
    if agreement.passed:
        return good("self-test", f"this machine computes what the bundle's maker computed ({words})")
    return bad(
        "self-test",
        f"this machine computes other embeddings: {words}, needed is {demanded(bundle.manifest.precision)}",
        "ask for an fp32 bundle, or install another version of onnxruntime",
    )


def images(data: Path, bundle: Bundle, settings: ReaderSettings, group_column: str | None = None) -> Finding:
    """List a site's images by the site's own rules, and read two different ones of each class."""
    try:
        dataset = load_dataset(
            data, bundle.manifest.class_names, settings=settings, group_column=group_column
        )
    except InvalidInputError as error:
        return bad("data", str(error), "the site would refuse this; correct the data, or site.data")
    counts = Counter(image.label for image in dataset.images)
    unreadable: list[UnreadableImageError] = []
    for label, count in sorted(counts.items()):
        different: set[bytes] = set()
        for image in dataset.images:
            if image.label == label and len(different) < _NEEDED_OF_A_CLASS:
                try:
                    different.add(read_identified(image.path, settings)[0].content_hash)
                except UnreadableImageError as error:
                    unreadable.append(error)
        if len(different) < _NEEDED_OF_A_CLASS:
            words = f"class {label!r}: of its {count} images {len(different)} can be read and differ"
            why = f"; {unreadable[0]}" if unreadable else ""
            return bad("data", words + why, "the site needs two: add images, or remove the class")
    shown = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
    words = f"{len(dataset.images)} images ({shown}); two of each class were read"
    more = f"`fedmedclip data {data}` reads all, and finds copies and label errors"
    if unreadable:
        words += f", and {len(unreadable)} on the way there cannot be: {unreadable[0]}"
        return note("data", f"{words}; {more}")
    return good("data", f"{words}; {more}")


def split(record: Path) -> Finding | None:
    """Say whether what is tested on is like what is trained on, by the record; None without a record."""
    try:
        recorded = read_split(record)
    except FedMedClipError as error:
        return bad("split", str(error), "the site would not start")
    if not recorded:
        return None
    images = list(recorded.values())
    counts = Counter(part for _, part in images)
    words = ", ".join(f"{part} {counts[part]}" for part in PARTS)
    leak = leak_of(images)
    if line := leak.line(str(record)):
        return note("split", line)
    if leak.by_file and not any(image.group for image, _ in images):
        return note(
            "split", f"{words}; drawn by file", "the next start says how many test images are like training's"
        )
    return good("split", f"{words}; no group is in training and in another part")


def features(store: Path) -> Finding:
    """Say what the feature store holds, without changing it."""
    if not store.exists():
        return good("features", f"none yet; they will be stored in {store}")
    try:
        with closing(sqlite3.connect(f"{store.resolve().as_uri()}?mode=ro", uri=True, timeout=5)) as found:
            (count,) = found.execute("SELECT count(*) FROM embedding").fetchone()
    except sqlite3.Error as error:
        return note("features", f"{store} cannot be read ({error})", "it will be set aside and made again")
    return good("features", f"{count} embeddings in {store}, {store.stat().st_size / 1e6:.1f} MB")


def _gigaflops() -> float:
    matrix = np.ones((_MATRIX, _MATRIX), np.float32)
    matrix @ matrix
    started, products = time.perf_counter(), 0
    while (seconds := time.perf_counter() - started) < _SECONDS / 2:
        matrix @ matrix
        products += 1
    return 2 * _MATRIX**3 * products / seconds / 1e9
