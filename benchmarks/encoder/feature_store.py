"""How long a feature store takes to open and to look up, and how much memory, when it is large.

    python -m benchmarks.encoder.feature_store [--images 100000] [--size 512] [--out FILE]

Makes a store of random embeddings in a temporary folder, then opens it in a process of its own, looks every
embedding up in pieces of 1,000 as `features.extract_features` does, and prints JSON. Memory is the process's
peak resident size and how much of it came after the imports; the embeddings found are not kept. The file was
just written, so the disk's speed does not show.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from fedmedclip.edge_client.features.feature_store import FeatureStore

BUNDLE = b"b" * 32
_PIECE = 1000


def main() -> None:
    """Make the store, measure in a fresh process, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--size", type=int, default=512, help="Values in an embedding.")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(_measure(options.measure, options.images)))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "features.db"
        started = time.perf_counter()
        _fill(path, options.images, options.size)
        filling = time.perf_counter() - started
        command = [sys.executable, "-m", "benchmarks.encoder.feature_store", "--measure", str(path)]
        done = subprocess.run(
            [*command, "--images", str(options.images)], capture_output=True, text=True, check=True
        )
        figures = {
            "images": options.images,
            "embedding_size": options.size,
            "file_megabytes": round(path.stat().st_size / 1e6, 1),
            "files": sorted(os.listdir(folder)),
            "fill_seconds": round(filling, 2),
            **json.loads(done.stdout),
        }
    text = json.dumps(figures, indent=2)
    print(text)
    if options.out:
        options.out.write_text(text + "\n")


def _fill(path: Path, images: int, size: int) -> None:
    draw = np.random.default_rng(0)
    with FeatureStore(path) as store:
        for start in range(0, images, _PIECE):
            rows = draw.standard_normal((_PIECE, size), dtype=np.float32)
            store.put_many(BUNDLE, {_key(start + number): row for number, row in enumerate(rows)})


def _measure(path: Path, images: int) -> dict[str, float]:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    store = FeatureStore(path)
    opened = time.perf_counter()
    found = sum(
        len(store.get_many(BUNDLE, [_key(start + number) for number in range(_PIECE)]))
        for start in range(0, images, _PIECE)
    )
    looked_up = time.perf_counter()
    store.close()
    if found != images:
        raise RuntimeError(f"found {found} of {images}")
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {
        "open_seconds": round(opened - started, 4),
        "look_up_seconds": round(looked_up - opened, 2),
        "peak_megabytes": round((before + grown) / 1024, 1),
        "peak_growth_megabytes": round(grown / 1024, 1),
    }


def _key(number: int) -> bytes:
    """Keys in no order, as hashes are."""
    return (number * 0x9E3779B97F4A7C15 % (1 << 64)).to_bytes(8, "big").ljust(32, b"k")


if __name__ == "__main__":
    main()
