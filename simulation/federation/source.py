"""Where the embeddings of a benchmark come from: a folder of sites, a file, or the built-in phantoms."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.console import Console

from fedmedclip.edge_client.features.feature_store import FeatureStore
from fedmedclip.edge_client.features.labelled import load_labelled_features
from fedmedclip.edge_client.progress import progress_bar
from fedmedclip.protocol.bundle.bundle import Bundle, open_bundle
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.visible import visible
from fedmedclip.simulation.federation.feature_pool import FeaturePool, pool_of_file, pool_of_folder
from fedmedclip.simulation.federation.folder import GLOBAL_TEST, SERVER_REFERENCE
from fedmedclip.simulation.phantoms.phantoms import write_federation
from fedmedclip.simulation.phantoms.small_clip import small_clip
from fedmedclip.simulation.preconditions import require_packages
from fedmedclip.simulation.processes.commands import run_command

_PHANTOM_SEED = 0


@dataclass(frozen=True)
class Source:
    """`data` with `bundle`, or `features`, or nothing: then phantoms and the small CLIP are made."""

    data: Path | None = None
    bundle: Path | None = None
    features: Path | None = None

    def check(self) -> None:
        """Raise InvalidInputError for a combination that makes no sense."""
        if (self.data is None) != (self.bundle is None) or (self.features and self.data):
            raise InvalidInputError(
                "give --data with --bundle, or --features alone, or none of them for the built-in phantoms"
            )

    def require_packages(self, command: str, out: Path) -> None:
        """Raise InvalidInputError unless all is installed that a benchmark needs, to the plots at its end."""
        makes_bundle = self.data is None and self.features is None and not (out / "bundle").exists()
        export = ("open_clip",) if makes_bundle else ()
        require_packages(
            command, "bench,export" if export else "bench", "torch", "onnx", "matplotlib", *export
        )


@dataclass(frozen=True)
class Features:
    """What is learned from, its classes, and the bundle that it comes from, if any.

    `unlabelled` is what methods can adapt to: embeddings float32 (n, D) by name, without labels.
    """

    pool: FeaturePool
    class_names: tuple[str, ...]
    unlabelled: dict[str, npt.NDArray[np.float32]] = field(default_factory=dict)
    bundle: Bundle | None = None


def load_features(source: Source, out: Path, console: Console, *, reference: bool = True) -> Features:
    """Return the features of a source; what was computed before lies in `out` and is used again.

    Without `reference` the folder's reference set is not read: nobody adapts to it.
    Raises InvalidInputError as `Source.check` does, and as the readers do.
    """
    source.check()
    if source.features is not None:
        return features_of_pool(pool_of_file(source.features))
    data, bundle = source.data, source.bundle
    if data is None or bundle is None:
        data, bundle = phantoms_of(out)
    with progress_bar("computing features") as progress:
        found = features_of_folder(
            data, open_bundle(bundle), out / "features.db", progress, reference=reference
        )
    for note in found.pool.notes:
        console.print(visible(note), highlight=False, markup=False, soft_wrap=True)
    return found


def features_of_pool(pool: FeaturePool) -> Features:
    """Return features that were computed elsewhere; their classes are numbers."""
    names = tuple(f"class {number}" for number in range(len(pool.class_embeddings)))
    return Features(pool, names, _global_test(pool))


def features_of_folder(
    data: Path,
    bundle: Bundle,
    store: Path,
    progress: Callable[[int, int], None] | None = None,
    *,
    reference: bool = True,
) -> Features:
    """Return the features of a folder of sites, encoding only what the feature store `store` lacks.

    Without `reference` its reference set is left out. Raises as `pool_of_folder` does.
    """
    with FeatureStore(store) as opened:
        pool = pool_of_folder(data, bundle, opened, progress)
        unlabelled = _global_test(pool)
        if reference and (folder := data / SERVER_REFERENCE).is_dir():
            unlabelled[SERVER_REFERENCE] = load_labelled_features(folder, bundle, opened)[0]
    return Features(pool, tuple(bundle.manifest.class_names), unlabelled, bundle)


def _global_test(pool: FeaturePool) -> dict[str, npt.NDArray[np.float32]]:
    return {} if pool.global_test is None else {GLOBAL_TEST: pool.global_test.embeddings}


def phantoms_of(out: Path) -> tuple[Path, Path]:
    """Return the built-in phantoms' folder and their bundle, made in `out` unless they are there."""
    data, bundle = out / "phantoms", out / "bundle"
    model = small_clip("--data with --bundle")
    # Written last, so what a killed run left is made again.
    if not (data / "classes.toml").exists():
        with progress_bar("phantoms of three hospitals") as progress:
            write_federation(data, _PHANTOM_SEED, on_image=progress)
    if not (bundle / "manifest.json").exists():
        with progress_bar("export of the small CLIP"):
            arguments = ["--model", model, "--classes", str(data), "--out", str(bundle)]
            run_command("export", ["export", *arguments], out / "logs")
    return data, bundle
