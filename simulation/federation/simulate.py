"""Whole federations from a notebook: data and a method in, tables and heads out."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fedmedclip.edge_client.heads.method import site_method
from fedmedclip.edge_client.learning.floors import DEFAULT_FLOORS, NO_FLOORS
from fedmedclip.edge_client.learning.settings import TrainingSettings
from fedmedclip.protocol.bundle.bundle import open_bundle
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.heads.head import NamedArrays
from fedmedclip.protocol.heads.methods import codec_for, rounds_for
from fedmedclip.simulation.federation.coders import codecs_of
from fedmedclip.simulation.federation.dealing import Dealing
from fedmedclip.simulation.federation.engine import ExperimentRun, begin
from fedmedclip.simulation.federation.evaluation import (
    CLASSIFIERS,
    accuracies,
    mean_over_sites,
    tested,
)
from fedmedclip.simulation.federation.experiment import USUAL_ROUNDS, Experiment, with_codec
from fedmedclip.simulation.federation.feature_pool import FeaturePool, pool_of_file
from fedmedclip.simulation.federation.folder import SERVER_REFERENCE
from fedmedclip.simulation.federation.plan import settings_of
from fedmedclip.simulation.federation.source import Features, features_of_folder, features_of_pool
from fedmedclip.simulation.federation.targets import Target
from fedmedclip.simulation.federation.virtual_sites import VirtualSite


@dataclass(frozen=True)
class SimulatedRound:
    """After a round of a seed: bytes of all sites together, and accuracies from 0 to 1.

    `zero_shot`, `shared`, `private` (None for a method without private head) and `ensemble` are means over
    the sites' test images, each site counting alike. `global_zero_shot` and `global_shared` are of images of
    no site, None where there are none. Joining counts to the first round.
    """

    seed: int
    number: int
    uplink_bytes: int
    downlink_bytes: int
    zero_shot: float
    shared: float
    private: float | None
    ensemble: float
    global_zero_shot: float | None
    global_shared: float | None


@dataclass(frozen=True)
class SimulatedSite:
    """A site of a seed: its images by split, and after the last round its accuracies on its test images.

    Accuracies are None for a site without test images, `private` for a method without private head too.
    """

    seed: int
    name: str
    train: int
    validation: int
    test: int
    zero_shot: float | None
    shared: float | None
    private: float | None
    ensemble: float | None


@dataclass(frozen=True)
class SimulatedHeads:
    """The last heads: arrays float32 by name. `private` is by site, empty for a method without one."""

    shared: NamedArrays
    private: dict[str, NamedArrays]


@dataclass(frozen=True)
class SimulationResult:
    """Tables with a row for each round and for each site, and the last heads by seed."""

    method: str
    codec: str
    class_names: tuple[str, ...]
    rounds: tuple[SimulatedRound, ...]
    sites: tuple[SimulatedSite, ...]
    heads: dict[int, SimulatedHeads]

    @property
    def total_bytes(self) -> int:
        """MQTT payload bytes of all seeds, sites and rounds, both ways."""
        return sum(row.uplink_bytes + row.downlink_bytes for row in self.rounds)


def simulate(
    data: str | Path | FeaturePool,
    bundle: str | Path | None = None,
    *,
    method: str = "fedmedclip",
    codec: str | None = None,
    rounds: int | None = None,
    seed: int | Sequence[int] = 0,
    sites: int | None = None,
    alpha: float = 0.5,
    rule: str | None = None,
    settings: TrainingSettings | Mapping[str, Any] | None = None,
    floors: bool = True,
    work: str | Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> SimulationResult:
    """Play a whole federation in this process, once for each seed, with the numbers of `bench accuracy`.

    `data` is a folder of sites, each a folder of classes, which needs a `bundle` to encode it; or a `.npz` of
    features (see `pool_of_file`), or a pool. `method` is one that sites can train with; `codec` may be
    `UP/DOWN`. `sites` deals all images out again among that many, with Dirichlet concentration `alpha`.
    `rule` is an aggregation rule, the method's default otherwise (`docs/explanation/aggregation-rules.md`).
    `settings` are training settings by name, the method's defaults otherwise; adapting methods adapt to the
    folder's server_reference where there is one. With `floors` sites and classes of few images tell nothing,
    as at a real site by default; sites that are small by design need them off. Computed features are kept in
    the folder `work` and used again; with None they are computed each time. With `rounds` None there are 30,
    or as many as the method needs; with `codec` None it is `lowrank`, or what suits the method. `progress` is
    told how many rounds of how many are done.

    Raises InvalidInputError for arguments or data that cannot be used, when the floors let no site send, and
    for want of PyTorch; BundleError for a bundle that is damaged.
    """
    chosen = site_method(method)
    codec = codec_for(method, codec)
    codecs_of(codec)
    seeds = _seeds(seed)
    if rounds is not None and rounds < 1:
        raise InvalidInputError(f"rounds is {rounds}; give at least 1")
    played = rounds_for(method, rounds, USUAL_ROUNDS)
    if not isinstance(settings, TrainingSettings):
        settings = settings_of(settings or {}, method)
    with _work_folder(work) as folder:
        features = _features(data, bundle, folder, reference=chosen.adapts)
        adapts = SERVER_REFERENCE in features.unlabelled
        experiment = Experiment(
            method=method,
            rounds=played,
            settings=settings,
            rule=rule,
            floors=DEFAULT_FLOORS if floors else NO_FLOORS,
            target=Target(SERVER_REFERENCE) if adapts else None,
            dealing=Dealing(sites, alpha),
        )
        experiment = with_codec(experiment, codec)
        done = count(1)

        def on_round() -> None:
            if progress is not None:
                progress(next(done), len(seeds) * played)

        round_rows: list[SimulatedRound] = []
        site_rows: list[SimulatedSite] = []
        heads = {}
        for one_seed in seeds:
            with begin(experiment, features.pool, one_seed, folder, targets=features.unlabelled) as run:
                round_rows += _play(run, on_round)
                site_rows += [_site_row(run, site) for site in run.sites.sites]
                private = {site.name: run.learning.private_head(site.name) for site in run.sites.sites}
                shared = run.learning.shared_head()
                assert shared is not None
                heads[one_seed] = SimulatedHeads(shared, private)
    return SimulationResult(method, codec, features.class_names, tuple(round_rows), tuple(site_rows), heads)


def _play(run: ExperimentRun, on_round: Callable[[], None]) -> list[SimulatedRound]:
    images, examiner = run.pool.global_test, run.examiner

    def score() -> tuple[dict[str, float], dict[str, float]]:
        means = mean_over_sites([examiner.of_site(run.learning, site) for site in tested(run.sites.sites)])
        shared = run.learning.shared_head()
        if images is None or shared is None:
            return means, {}
        return means, accuracies(examiner.predict(shared, {}, images.embeddings), images.labels)

    rows = []
    for number, entry in enumerate(run.play(score, on_round).rounds.rounds, start=1):
        means, on_global = entry.score
        rows.append(
            SimulatedRound(
                seed=run.seed,
                number=number,
                uplink_bytes=entry.uplink_bytes,
                downlink_bytes=entry.downlink_bytes,
                zero_shot=means["zero_shot"],
                shared=means["shared"],
                private=means.get("private"),
                ensemble=means["ensemble"],
                global_zero_shot=on_global.get("zero_shot"),
                global_shared=on_global.get("shared"),
            )
        )
    return rows


def _site_row(run: ExperimentRun, site: VirtualSite) -> SimulatedSite:
    found = run.examiner.of_site(run.learning, site) if len(site.test) else {}
    counts = len(site.train), len(site.validation), len(site.test)
    return SimulatedSite(run.seed, site.name, *counts, *map(found.get, CLASSIFIERS))


def _features(
    data: str | Path | FeaturePool, bundle: str | Path | None, folder: Path, reference: bool
) -> Features:
    if isinstance(data, FeaturePool) or Path(data).suffix == ".npz":
        if bundle is not None:
            raise InvalidInputError("the data are features already; leave the bundle out")
        return features_of_pool(data if isinstance(data, FeaturePool) else pool_of_file(Path(data)))
    if bundle is None:
        raise InvalidInputError(f"data {data} are images; give the bundle that encodes them")
    return features_of_folder(
        Path(data), open_bundle(Path(bundle)), folder / "features.db", reference=reference
    )


def _seeds(seed: int | Sequence[int]) -> list[int]:
    seeds = [seed] if isinstance(seed, int) else list(dict.fromkeys(seed))
    if not seeds or min(seeds) < 0:
        raise InvalidInputError(f"seed is {seed}; give one or more whole numbers from 0")
    return seeds


@contextmanager
def _work_folder(work: str | Path | None) -> Iterator[Path]:
    if work is None:
        with TemporaryDirectory(prefix="fedmedclip-") as folder:
            yield Path(folder)
        return
    try:
        Path(work).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidInputError(f"work folder {work} cannot be used ({error}); give another") from error
    yield Path(work)
