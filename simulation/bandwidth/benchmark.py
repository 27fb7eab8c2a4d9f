"""`fedmedclip bench bandwidth`: features -> runs (each codec with each seed) -> rows, plots, the sentence."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from fedmedclip.edge_client.features.feature_store import FeatureStore
from fedmedclip.edge_client.progress import progress_bar
from fedmedclip.protocol.bundle.bundle import Bundle, open_bundle
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.heads.shared_heads import shared_head_specification
from fedmedclip.protocol.state_folder import claim_state_folder
from fedmedclip.simulation.bandwidth.full_model import encoder_parameter_bytes
from fedmedclip.simulation.bandwidth.loss import difference_to_uncompressed
from fedmedclip.simulation.bandwidth.plots import draw
from fedmedclip.simulation.bandwidth.results import (
    breakdown,
    compare,
    make_rows,
    target_accuracy,
    write_curves,
)
from fedmedclip.simulation.bandwidth.runs import (
    WORKING_PREFIX,
    CodecChoice,
    Experiment,
    Run,
    codec_choices,
    open_runs,
    run_federation,
)
from fedmedclip.simulation.bandwidth.table import print_rows
from fedmedclip.simulation.bandwidth.thin_link import ThinLink, parse_link
from fedmedclip.simulation.federation.feature_pool import FeaturePool, pool_of_file, pool_of_folder
from fedmedclip.simulation.federation.run_file import RunFile
from fedmedclip.simulation.seed_lists import parse_seeds


@dataclass(frozen=True)
class BandwidthSettings:
    """What the command is asked to do; either `data` with `bundle`, or `features`."""

    out: Path
    codecs: str
    seeds: str
    data: Path | None = None
    bundle: Path | None = None
    features: Path | None = None
    sites: int | None = None
    alpha: float = 0.5
    sites_per_round: int | None = None
    method: str = "fedmedclip"
    rounds: int = 30
    target: float | None = None
    link: str = "64kbit/s"
    rtt: str = "600ms"


def run_bandwidth(settings: BandwidthSettings, console: Console) -> None:
    """Run what `settings.out` does not hold yet, and write every result there.

    Raises FedMedClipError for anything that cannot be used; KeyboardInterrupt leaves the finished runs.
    """
    link = parse_link(settings.link, settings.rtt)
    choices, seeds = codec_choices(settings.codecs), parse_seeds(settings.seeds)
    _check(settings)
    bundle = None if settings.bundle is None else open_bundle(settings.bundle)
    if settings.out.exists() and not settings.out.is_dir():
        raise InvalidInputError(f"output {settings.out} is a file; give a folder with --out")
    with claim_state_folder(settings.out):
        pool = _pool(settings, bundle)
        shared_head_specification(settings.method, pool.embedding_size, len(pool.class_embeddings))
        _sweep(settings.out)
        experiment = Experiment(
            pool, settings.method, settings.rounds, settings.sites, settings.alpha, settings.sites_per_round
        )
        run_file = open_runs(settings.out, experiment)
        _say_sites(experiment, seeds[0], console)
        try:
            _run_missing(experiment, choices, seeds, run_file, settings.out, console)
        except KeyboardInterrupt:
            console.print(
                f"stopped; {settings.out} keeps the finished runs: the same command goes on from there"
            )
            raise
        runs = {choice.label: [run_file.runs[choice.label, seed] for seed in seeds] for choice in choices}
        full_model = None if bundle is None else encoder_parameter_bytes(bundle.image_encoder)
        _write_results(settings, experiment, link, runs, full_model, console)


def _check(settings: BandwidthSettings) -> None:
    if (settings.features is None) == (settings.data is None or settings.bundle is None):
        raise InvalidInputError("give --data with --bundle, or --features")
    if settings.sites is not None and settings.sites < 1:
        raise InvalidInputError(f"--sites is {settings.sites}; give at least 1")
    if settings.sites_per_round is not None and settings.sites_per_round < 1:
        raise InvalidInputError(f"--sites-per-round is {settings.sites_per_round}; give at least 1")
    if settings.rounds < 1:
        raise InvalidInputError(f"--rounds is {settings.rounds}; give at least 1")
    if settings.target is not None and not 0 < settings.target <= 1:
        raise InvalidInputError(f"--target is {settings.target}; give an accuracy between 0 and 1")


def _pool(settings: BandwidthSettings, bundle: Bundle | None) -> FeaturePool:
    if settings.features is not None:
        return pool_of_file(settings.features)
    assert settings.data is not None
    assert bundle is not None
    with FeatureStore(settings.out / "features.db") as store, progress_bar("computing features") as progress:
        return pool_of_folder(settings.data, bundle, store, progress)


def _sweep(folder: Path) -> None:
    """Remove the working state of a run that was killed."""
    for left_behind in folder.glob(f"{WORKING_PREFIX}*"):
        shutil.rmtree(left_behind)


def _say_sites(experiment: Experiment, seed: int, console: Console) -> None:
    pool, sites = experiment.pool, experiment.deal(seed)
    for note in pool.notes:
        console.print(note, highlight=False)
    line = f"{len(pool.labels)} images of {pool.embedding_size} values at {len(sites.sites)} sites"
    if sites.left_out:
        line += f" (seed {seed}; {sites.left_out} more have fewer than 2 training images and take no part)"
    if experiment.sites_per_round is not None:
        line += f", {min(experiment.sites_per_round, len(sites.sites))} of them in each round"
    console.print(line, highlight=False)


def _run_missing(
    experiment: Experiment,
    choices: Sequence[CodecChoice],
    seeds: Sequence[int],
    run_file: RunFile[Run, tuple[str, int]],
    folder: Path,
    console: Console,
) -> None:
    wanted = [(choice, seed) for choice in choices for seed in seeds]
    missing = [(choice, seed) for choice, seed in wanted if (choice.label, seed) not in run_file.runs]
    if len(missing) < len(wanted):
        console.print(f"{len(wanted) - len(missing)} of {len(wanted)} runs are done already", highlight=False)
    columns = (TextColumn("{task.description:<28}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=len(missing) * experiment.rounds)
        for choice, seed in missing:
            progress.update(task, description=f"{choice.label}, seed {seed}")
            run_file.add(run_federation(experiment, choice, seed, folder, lambda: progress.advance(task)))


def _write_results(
    settings: BandwidthSettings,
    experiment: Experiment,
    link: ThinLink,
    runs: dict[str, list[Run]],
    full_model: int | None,
    console: Console,
) -> None:
    seeds = [run.seed for run in next(iter(runs.values()))]
    target, target_source = target_accuracy(runs, settings.target)
    rows = make_rows(runs, link, target)
    comparison = compare(rows, full_model)
    losses = difference_to_uncompressed(runs)
    content = {
        "rows": rows,
        "comparison": comparison,
        "target": {"accuracy": target, "source": target_source},
        "link": link,
        "full_model_fp32_bytes": full_model,
        "settings": {**experiment.description(), "seeds": seeds},
        "accuracy_less_uncompressed": losses,
        "details": {codec: breakdown(of_seeds) for codec, of_seeds in runs.items()},
    }
    encoded = msgspec.json.format(msgspec.json.encode(content), indent=2)
    (settings.out / "bandwidth.json").write_bytes(encoded + b"\n")
    write_curves(settings.out / "curves.csv", runs)
    plots = draw(settings.out, rows, runs)
    count = f"mean of {len(seeds)} seed{'s' * (len(seeds) > 1)}, {settings.rounds} rounds"
    console.print(f"{settings.method}, {count}", highlight=False)
    waited_for = f"{100 * target:.1f} % ({target_source})"
    print_rows(console, rows, f"{settings.link}, {settings.rtt}", waited_for, losses)
    console.print(comparison.sentence, highlight=False, style="bold")
    files = ", ".join(["bandwidth.json", "curves.csv", *(path.name for path in plots)])
    console.print(f"{settings.out}: {files}", highlight=False)
