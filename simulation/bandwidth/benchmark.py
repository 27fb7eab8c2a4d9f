"""`fedmedclip bench bandwidth`: features -> runs (each codec with each seed) -> rows, plots, the sentence."""

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import msgspec
from rich.console import Console

from fedmedclip.edge_client.learning.floors import DEFAULT_FLOORS, NO_FLOORS
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.heads.methods import rounds_for
from fedmedclip.protocol.heads.shared_heads import shared_head_specification
from fedmedclip.protocol.new_files import write_new_file
from fedmedclip.protocol.visible import visible
from fedmedclip.simulation.bandwidth.full_model import encoder_parameter_bytes
from fedmedclip.simulation.bandwidth.loss import (
    difference_to_uncompressed,
    global_difference_to_uncompressed,
)
from fedmedclip.simulation.bandwidth.plots import draw
from fedmedclip.simulation.bandwidth.results import (
    breakdown,
    compare,
    make_rows,
    target_accuracy,
    write_curves,
)
from fedmedclip.simulation.bandwidth.runs import CodecTrial, Run, codec_choices, open_runs, run_federation
from fedmedclip.simulation.bandwidth.table import print_rows
from fedmedclip.simulation.bandwidth.thin_link import ThinLink, parse_link
from fedmedclip.simulation.federation.dealing import Dealing
from fedmedclip.simulation.federation.experiment import USUAL_ROUNDS, Experiment
from fedmedclip.simulation.federation.run_loop import (
    Job,
    at_least_one,
    claim_output,
    run_missing,
)
from fedmedclip.simulation.federation.source import Source, load_features
from fedmedclip.simulation.seed_lists import parse_seeds


@dataclass(frozen=True)
class BandwidthSettings:
    """What the command is asked to do; see its `--help`."""

    out: Path
    codecs: str
    seeds: str
    source: Source = field(default_factory=Source)
    sites: int | None = None
    alpha: float = 0.5
    sites_per_round: int | None = None
    method: str = "fedmedclip"
    rounds: int | None = None
    target: float | None = None
    link: str = "64kbit/s"
    rtt: str = "600ms"
    floors: bool = True


def run_bandwidth(settings: BandwidthSettings, console: Console) -> None:
    """Run what `settings.out` does not hold yet, and write every result there.

    Raises FedMedClipError for anything that cannot be used; KeyboardInterrupt leaves the finished runs.
    """
    link = parse_link(settings.link, settings.rtt)
    codecs, seeds = codec_choices(settings.codecs), parse_seeds(settings.seeds)
    _check(settings)
    settings.source.require_packages("bench bandwidth", settings.out)
    with claim_output(settings.out):
        features = load_features(settings.source, settings.out, console, reference=False)
        pool = features.pool
        shared_head_specification(settings.method, pool.embedding_size, len(pool.class_embeddings))
        rounds = rounds_for(settings.method, settings.rounds, USUAL_ROUNDS)
        experiment = Experiment(
            method=settings.method,
            rounds=rounds,
            floors=DEFAULT_FLOORS if settings.floors else NO_FLOORS,
            dealing=Dealing(settings.sites, settings.alpha),
            sites_per_round=settings.sites_per_round,
        )
        trial = CodecTrial(pool, experiment)
        run_file = open_runs(settings.out, trial)
        _say_sites(trial, seeds[0], console)
        jobs = {
            (codec, seed): Job(
                f"{codec}, seed {seed}",
                rounds,
                partial(run_federation, trial, codec, seed, settings.out),
            )
            for codec in codecs
            for seed in seeds
        }
        run_missing(jobs, run_file, settings.out, console)
        runs = {codec: [run_file.runs[codec, seed] for seed in seeds] for codec in codecs}
        bundle = features.bundle
        full_model = None if bundle is None else encoder_parameter_bytes(bundle.image_encoder)
        _write_results(settings, trial, link, runs, full_model, console)


def _check(settings: BandwidthSettings) -> None:
    settings.source.check()
    at_least_one("--sites", settings.sites)
    at_least_one("--sites-per-round", settings.sites_per_round)
    at_least_one("--rounds", settings.rounds)
    if settings.target is not None and not 0 < settings.target <= 1:
        raise InvalidInputError(f"--target is {settings.target}; give an accuracy between 0 and 1")


def _say_sites(trial: CodecTrial, seed: int, console: Console) -> None:
    pool, experiment = trial.pool, trial.experiment
    sites = experiment.dealing.deal(pool, seed)
    line = f"{len(pool.labels)} images of {pool.embedding_size} values at {len(sites.sites)} sites"
    if sites.left_out:
        line += f" (seed {seed}; {sites.left_out} more have fewer than 2 training images and take no part)"
    if experiment.sites_per_round is not None:
        line += f", {min(experiment.sites_per_round, len(sites.sites))} of them in each round"
    console.print(line, highlight=False, soft_wrap=True)


def _write_results(
    settings: BandwidthSettings,
    trial: CodecTrial,
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
    global_losses = global_difference_to_uncompressed(runs)
    content = {
        "rows": rows,
        "comparison": comparison,
        "target": {"accuracy": target, "source": target_source},
        "link": link,
        "full_model_fp32_bytes": full_model,
        "settings": {**trial.description(), "seeds": seeds},
        "accuracy_less_uncompressed": losses,
        "accuracy_global_less_uncompressed": global_losses,
        "details": {codec: breakdown(of_seeds) for codec, of_seeds in runs.items()},
    }
    encoded = msgspec.json.format(msgspec.json.encode(content), indent=2)
    write_new_file(settings.out / "bandwidth.json", encoded + b"\n")
    write_curves(settings.out / "curves.csv", runs)
    plots = draw(settings.out, rows, runs)
    count = f"mean of {len(seeds)} seed{'s' * (len(seeds) > 1)}, {trial.experiment.rounds} rounds"
    console.print(f"{settings.method}, {count}", highlight=False, soft_wrap=True)
    waited_for = f"{100 * target:.1f} % ({target_source})"
    print_rows(console, rows, f"{settings.link}, {settings.rtt}", waited_for, losses, global_losses)
    console.print(comparison.sentence, highlight=False, style="bold", soft_wrap=True)
    files = ", ".join(["bandwidth.json", "curves.csv", *(path.name for path in plots)])
    console.print(f"{visible(settings.out)}: {files}", highlight=False, markup=False, soft_wrap=True)
