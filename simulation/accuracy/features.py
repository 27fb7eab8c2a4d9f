"""Where the embeddings of a comparison come from: a folder of sites, a file, or the built-in phantoms."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.console import Console

from fedmedclip.edge_client.features.feature_store import FeatureStore
from fedmedclip.edge_client.features.labelled import load_labelled_features
from fedmedclip.edge_client.progress import progress_bar
from fedmedclip.protocol.bundle.bundle import open_bundle
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.simulation.accuracy.runs import GLOBAL
from fedmedclip.simulation.accuracy.targets import SERVER_REFERENCE
from fedmedclip.simulation.federation.feature_pool import FeaturePool, pool_of_file, pool_of_folder
from fedmedclip.simulation.phantoms.phantoms import write_federation
from fedmedclip.simulation.phantoms.small_clip import small_clip
from fedmedclip.simulation.processes.commands import run_command

Floats = npt.NDArray[np.float32]

_PHANTOM_SEED = 0


@dataclass(frozen=True)
class Source:
    """`data` with `bundle`, or `features`, or nothing: then phantoms and the small CLIP are made."""

    data: Path | None = None
    bundle: Path | None = None
    features: Path | None = None


def load_features(
    source: Source, out: Path, console: Console
) -> tuple[FeaturePool, tuple[str, ...], dict[str, Floats]]:
    """Return embeddings, class names, and what can be adapted to, float32 (n, D) by name, without labels.

    What was computed before lies in `out` and is used again. Raises InvalidInputError for a
    combination of options that makes no sense, and as the readers do.
    """
    if source.features is not None:
        if source.data is not None or source.bundle is not None:
            raise InvalidInputError("give --features alone, or --data with --bundle")
        pool = pool_of_file(source.features)
        names = tuple(f"class {number}" for number in range(len(pool.class_embeddings)))
        return pool, names, _targets(pool, None)
    if (source.data is None) != (source.bundle is None):
        raise InvalidInputError("give --data with --bundle, or neither for the built-in phantoms")
    data, bundle_folder = source.data, source.bundle
    if data is None or bundle_folder is None:
        data, bundle_folder = out / "phantoms", out / "bundle"
        _make_phantoms(data, bundle_folder, out / "logs", console)
    bundle = open_bundle(bundle_folder)
    with FeatureStore(out / "features.db") as store, progress_bar("computing features") as progress:
        pool = pool_of_folder(data, bundle, store, progress)
        reference = data / SERVER_REFERENCE
        published = load_labelled_features(reference, bundle, store)[0] if reference.is_dir() else None
    for note in pool.notes:
        console.print(note, highlight=False)
    return pool, tuple(bundle.manifest.class_names), _targets(pool, published)


def target_digest(targets: Mapping[str, Floats]) -> str:
    """Return a digest of what can be adapted to: equal digests give equal results."""
    digest = hashlib.sha256()
    for name, embeddings in sorted(targets.items()):
        digest.update(f"{name} {embeddings.shape} ".encode() + embeddings.tobytes())
    return digest.hexdigest()


def _targets(pool: FeaturePool, reference: Floats | None) -> dict[str, Floats]:
    found = {} if reference is None else {SERVER_REFERENCE: reference}
    return found if pool.global_test is None else {**found, GLOBAL: pool.global_test.embeddings}


def _make_phantoms(data: Path, bundle: Path, logs: Path, console: Console) -> None:
    model = small_clip("--data with --bundle")
    # Written last, so what a killed run left is made again.
    if not (data / "classes.toml").exists():
        with progress_bar("phantoms of three hospitals") as progress:
            write_federation(data, _PHANTOM_SEED, on_image=progress)
    if not (bundle / "manifest.json").exists():
        with console.status("export of the small CLIP"):
            arguments = ["--model", model, "--classes", str(data), "--out", str(bundle)]
            run_command("export", ["export", *arguments], logs)
