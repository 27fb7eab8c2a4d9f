"""What codecs cost in accuracy on the configurations of `hard_features`, with its interval.

    python -m benchmarks.wire.codec_loss codec-loss --sizes 64,256 --numbers 0,1,3,4 --seeds 0,1,2 \
        --codecs "lowrank;auto:bytes=1460"

Each run is one of `fedmedclip bench bandwidth`, with the learning rate of its configuration. Finished runs
rest in the folder. The numbers that are held out (2, 5, 8 ...) are for the last look at a codec alone.
"""

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from itertools import groupby
from pathlib import Path
from statistics import fmean

from rich.console import Console

from benchmarks.wire.hard_features import SIZES, HardFeatures, configuration, write_hard_features
from fedmedclip.edge_client.learning.floors import NO_FLOORS
from fedmedclip.edge_client.learning.settings import TrainingSettings
from fedmedclip.simulation.bandwidth.loss import (
    difference_to_uncompressed,
    global_difference_to_uncompressed,
)
from fedmedclip.simulation.bandwidth.results import UNCOMPRESSED, final_accuracy_global
from fedmedclip.simulation.bandwidth.runs import CodecTrial, Run, open_runs, run_federation
from fedmedclip.simulation.differences import Difference, mean_difference
from fedmedclip.simulation.federation.experiment import Experiment
from fedmedclip.simulation.federation.feature_pool import pool_of_file
from fedmedclip.simulation.federation.run_loop import Job, claim_output, run_missing
from fedmedclip.simulation.seed_lists import parse_seeds

_METHOD = "fedmedclip"

Losses = dict[str, tuple[Difference, Difference]]
"""By codec: the difference to the uncompressed runs on the sites' tests, and on the global test."""


def main() -> None:
    """Run what the folder does not hold yet and print a line per configuration and codec, and the means."""
    options = _options()
    console = Console(highlight=False, soft_wrap=True)
    codecs = list(dict.fromkeys([UNCOMPRESSED, *filter(None, options.codecs.split(";"))]))
    found: list[tuple[int, Losses]] = []
    for size in options.sizes:
        for number in options.numbers:
            wanted = configuration(size, number)
            runs = runs_of(wanted, codecs, options.seeds, options.rounds, options.out / wanted.name, console)
            losses = losses_of(runs)
            found.append((size, losses))
            _print_configuration(wanted, runs, losses, console)
    for size, of_size in groupby(found, key=lambda pair: pair[0]):
        _print_means(size, [losses for _, losses in of_size], console)


def runs_of(
    wanted: HardFeatures,
    codecs: Sequence[str],
    seeds: Sequence[int],
    rounds: int,
    out: Path,
    console: Console,
) -> dict[str, list[Run]]:
    """Return the runs of a configuration by codec, one per seed; those that `out` lacks are played."""
    with claim_output(out):
        features = out / "features.npz"
        if not features.exists():
            write_hard_features(features, wanted)
        settings = TrainingSettings(
            shared_learning_rate=wanted.learning_rate, private_learning_rate=wanted.learning_rate / 2
        )
        pool = pool_of_file(features)
        experiment = Experiment(method=_METHOD, rounds=rounds, settings=settings, floors=NO_FLOORS)
        trial = CodecTrial(pool, experiment)
        file = open_runs(out, trial)
        jobs = {
            (codec, seed): Job(
                f"{wanted.name}, {codec}, seed {seed}",
                rounds,
                partial(run_federation, trial, codec, seed, out),
            )
            for seed in seeds
            for codec in codecs
        }
        run_missing(jobs, file, out, console)
    return {codec: [file.runs[codec, seed] for seed in seeds] for codec in codecs}


def losses_of(runs: dict[str, list[Run]]) -> Losses:
    """Return what each codec but the uncompressed one costs."""
    at_sites, on_global = difference_to_uncompressed(runs), global_difference_to_uncompressed(runs)
    return {codec: (at_sites[codec], on_global[codec]) for codec in runs if codec != UNCOMPRESSED}


def _print_configuration(
    wanted: HardFeatures, runs: dict[str, list[Run]], losses: Losses, console: Console
) -> None:
    accuracy = fmean(final_accuracy_global(run) or 0.0 for run in runs[UNCOMPRESSED])
    drawn = ", ".join(
        f"{key} {value:g}" for key, value in asdict(wanted).items() if key not in ("size", "number")
    )
    console.print(f"{wanted.name}{' (held out)' if wanted.held_out else ''}: {drawn}")
    console.print(f"  {UNCOMPRESSED}: {100 * accuracy:.1f} % on the global test")
    for codec, (at_sites, on_global) in losses.items():
        turns = sum(entry.participants for run in runs[codec] for entry in run.rounds)
        total = sum(entry.uplink_bytes + entry.downlink_bytes for run in runs[codec] for entry in run.rounds)
        console.print(
            f"  {codec}: sites {at_sites.in_points()}, global {on_global.in_points()}, "
            f"{total / turns:,.0f} bytes"
        )


def _print_means(size: int, losses: Sequence[Losses], console: Console) -> None:
    """Print means over configurations, which are independent of each other while seeds of one are not."""
    for codec in losses[0]:
        at_sites = mean_difference([of_one[codec][0].mean for of_one in losses])
        on_global = mean_difference([of_one[codec][1].mean for of_one in losses])
        console.print(
            f"D = {size}, {codec}: sites {at_sites.in_points()}, global {on_global.in_points()}, "
            f"mean of {len(losses)} configurations"
        )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, help="folder of the runs")
    parser.add_argument("--sizes", type=_numbers, default=list(SIZES))
    parser.add_argument("--numbers", type=_numbers, default=[0, 1, 3, 4], help="which configurations")
    parser.add_argument("--seeds", type=parse_seeds, default=[0, 1, 2])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument(
        "--codecs", default="lowrank;auto:bytes=1460", help="names, or UP/DOWN, with ; between"
    )
    return parser.parse_args()


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


if __name__ == "__main__":
    main()
