"""A quick part of the results: figures that change when export, splits, methods or codecs do.

    python -m benchmarks.results.quick --out FOLDER [--data DATA --model MODEL]

Phantoms with the small CLIP, and where data and model are given every fourth image of them, exported and
encoded by today's code; a federation of two rounds for each method. Writes `quick.json`. The committed one is
`docs/results/quick.json`; `tests/benchmarks/results/test_quick.py` computes it again and compares.
"""

import argparse
import csv
import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from benchmarks.results.surroundings import machine, versions
from fedmedclip.export.bundle import export_bundle
from fedmedclip.export.prompts import read_class_prompts
from fedmedclip.protocol.bundle.bundle import Bundle
from fedmedclip.protocol.heads.head import head_digest
from fedmedclip.simulation.federation.feature_pool import FeaturePool
from fedmedclip.simulation.federation.simulate import simulate
from fedmedclip.simulation.federation.source import features_of_folder
from fedmedclip.simulation.phantoms.phantoms import write_federation
from fedmedclip.simulation.phantoms.small_clip import small_clip

METHODS = ("fedmedclip", "whitened-memory")
CODECS = ("lowrank", "int8")
_SHARE_OF_PHANTOMS = 0.1
_EVERY = 4
# Between machines: one image of some more than a hundred, the last bits of an embedding, of a share of bytes.
_ACCURACY_TOLERANCE, _COSINE_TOLERANCE, _BYTES_TOLERANCE = 0.02, 0.002, 0.02


class Federated(msgspec.Struct, frozen=True):
    """A method with a codec after two rounds: accuracies as `fedmedclip.simulate` has them, bytes of all."""

    shared: float
    ensemble: float
    global_shared: float
    total_bytes: int
    head: str


class Part(msgspec.Struct, frozen=True):
    """Figures of a data set. `split` is a digest of who trains, validates and tests.

    `cosine` is the mean cosine of an image with the text of its class: it moves with the least change of an
    export. `federated` is by method and codec.
    """

    images: int
    split: str
    cosine: float
    zero_shot: float
    global_zero_shot: float
    federated: dict[str, Federated]


class Quick(msgspec.Struct, frozen=True):
    """All of it, and where it was computed: the same machine and versions give the same to the last bit."""

    machine: str
    versions: dict[str, str]
    parts: dict[str, Part]


def phantoms(work: Path) -> Part:
    """Return the figures of some phantoms with the small CLIP."""
    data = work / "phantoms"
    write_federation(data, 0, scale=_SHARE_OF_PHANTOMS)
    return measure(data, export(small_clip("another model"), data, work), work)


def brain(data: Path, model: Path, work: Path) -> Part:
    """Return the figures of every fourth image of a folder of sites."""
    thinned = work / "images"
    thin(data, thinned)
    return measure(thinned, export(f"local-dir:{model}", thinned, work), work)


def thin(data: Path, thinned: Path) -> None:
    """Copy every fourth image of each class, with `classes.toml`, and `groups.csv` where there is one."""
    for folder in sorted(path for path in data.glob("*/*") if path.is_dir()):
        for file in sorted(folder.iterdir())[::_EVERY]:
            target = thinned / file.relative_to(data)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
    shutil.copyfile(data / "classes.toml", thinned / "classes.toml")
    if (groups := data / "groups.csv").exists():
        with groups.open(newline="", encoding="utf-8") as source:
            header, *rows = csv.reader(source)
        with (thinned / "groups.csv").open("w", newline="", encoding="utf-8") as target_file:
            kept = [row for row in rows if (thinned / row[header.index("file")]).exists()]
            csv.writer(target_file).writerows([header, *kept])


def export(model: str, data: Path, work: Path) -> Bundle:
    """Return the bundle that today's code exports."""
    return export_bundle(model, None, read_class_prompts(data), work / "bundle", "fp32")


def measure(data: Path, bundle: Bundle, work: Path) -> Part:
    """Return the figures of a folder of sites with this bundle."""
    pool = features_of_folder(data, bundle, work / "features.db", reference=False).pool
    found = {}
    for method in METHODS:
        for codec in CODECS:
            result = simulate(pool, method=method, codec=codec, rounds=2, seed=0, floors=False)
            last = result.rounds[-1]
            assert last.global_shared is not None
            assert last.global_zero_shot is not None
            zero_shot, global_zero_shot = last.zero_shot, last.global_zero_shot
            found[f"{method} {codec}"] = Federated(
                round(last.shared, 6),
                round(last.ensemble, 6),
                round(last.global_shared, 6),
                result.total_bytes,
                head_digest(result.heads[0].shared).hex()[:12],
            )
    return Part(
        len(pool.labels),
        split_digest(pool),
        round(float(np.sum(pool.embeddings * pool.class_embeddings[pool.labels], axis=1).mean()), 6),
        round(zero_shot, 6),
        round(global_zero_shot, 6),
        found,
    )


def split_digest(pool: FeaturePool) -> str:
    """Return 12 hexadecimal digits over each site's numbers of images by part, with seed 0."""
    whole = hashlib.sha256()
    for site in pool.deal(0).sites:
        for part in (site.train, site.validation, site.test):
            whole.update(np.asarray(part, np.int64).tobytes() + b"/")
    return whole.hexdigest()[:12]


def differences(found: Part, kept: Part, exact: bool) -> list[str]:
    """Return what differs, a line each. Not exact: heads are not compared, figures within a tolerance."""
    lines = []

    def check(name: str, one: object, other: object, tolerance: float = 0.0) -> None:
        allowed = 0.0 if exact else tolerance
        close = (
            abs(one - other) <= allowed
            if isinstance(one, int | float) and isinstance(other, int | float)
            else one == other
        )
        if not close:
            lines.append(f"{name}: {one} now, {other} in docs/results/quick.json")

    check("images", found.images, kept.images)
    check("split", found.split, kept.split)
    check("cosine", found.cosine, kept.cosine, _COSINE_TOLERANCE)
    for name in ("zero_shot", "global_zero_shot"):
        check(name, getattr(found, name), getattr(kept, name), _ACCURACY_TOLERANCE)
    check("methods", sorted(found.federated), sorted(kept.federated))
    for case in found.federated.keys() & kept.federated.keys():
        now, then = found.federated[case], kept.federated[case]
        for name in ("shared", "ensemble", "global_shared"):
            check(f"{case}, {name}", getattr(now, name), getattr(then, name), 2 * _ACCURACY_TOLERANCE)
        check(f"{case}, bytes", now.total_bytes, then.total_bytes, _BYTES_TOLERANCE * then.total_bytes)
        if exact:
            check(f"{case}, head", now.head, then.head)
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    """Compute and write `quick.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--model", type=Path)
    options = parser.parse_args(arguments)
    parts = {}
    for name in ("phantoms", *(("brain",) if options.data and options.model else ())):
        work = options.out / name
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        parts[name] = phantoms(work) if name == "phantoms" else brain(options.data, options.model, work)
    encoded = msgspec.json.format(msgspec.json.encode(Quick(machine(), versions(), parts)), indent=1)
    (options.out / "quick.json").write_bytes(encoded + b"\n")


if __name__ == "__main__":
    main()
