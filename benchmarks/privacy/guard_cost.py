"""What it costs that a site answers with its best heads on validation, where nobody is hostile.

    python -m benchmarks.privacy.guard_cost --data FOLDER --bundle BUNDLE --out leakage

Federations of the natural sites; after each round every site judges its newest heads by balanced accuracy,
as its guard does first (`edge_client.versions.guard`), on its whole validation split and on 12 and 4 images
of it. Prints the mean over sites and seeds of accuracy and balanced accuracy on test, of the last version and
of what answers in the end, and how often that is zero-shot; and, for comparison, what plain accuracy as the
score would give.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.console import Console

from fedmedclip.simulation.federation.engine import begin
from fedmedclip.simulation.federation.evaluation import share_right
from fedmedclip.simulation.federation.experiment import Experiment
from fedmedclip.simulation.federation.feature_pool import FeaturePool
from fedmedclip.simulation.federation.source import Source, load_features

Probabilities = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]
Score = Callable[[Probabilities, Labels], float]


@dataclass(frozen=True)
class Version:
    """What a site's ensemble and zero-shot say of its validation and test images, after a round."""

    validation: Probabilities
    validation_zero_shot: Probabilities
    test: Probabilities
    test_zero_shot: Probabilities


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of sites")
    parser.add_argument("--bundle", type=Path, required=True, help="bundle that encodes the images")
    parser.add_argument("--out", type=Path, required=True, help="folder of features")
    parser.add_argument("--methods", default="fedmedclip,whitened-memory,fedclip")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=4)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    console = Console()
    pool = load_features(
        Source(arguments.data, arguments.bundle), arguments.out, console, reference=False
    ).pool
    for method in arguments.methods.split(","):
        found: dict[str, list[tuple[float, float, bool]]] = {}
        for seed in range(arguments.seeds):
            _play(pool, method, arguments.rounds, seed, arguments.out, found)
        for name, figures in found.items():
            accuracy, balanced, zero_shot = np.mean(figures, axis=0)
            console.print(
                f"{method}, {name}: {100 * accuracy:.1f}, {100 * balanced:.1f}; "
                f"zero-shot answers at {100 * zero_shot:.0f} %",
                highlight=False,
            )


def _play(
    pool: FeaturePool,
    method: str,
    rounds: int,
    seed: int,
    folder: Path,
    found: dict[str, list[tuple[float, float, bool]]],
) -> None:
    with begin(Experiment(method=method, rounds=rounds), pool, seed, folder) as run:
        sites = run.sites.sites
        versions: dict[str, list[Version]] = {site.name: [] for site in sites}

        def score() -> None:
            for site in sites:
                held = run.examiner.at_site(run.learning, site.name, pool.embeddings[site.validation])
                test = run.examiner.at_site(run.learning, site.name, pool.embeddings[site.test])
                versions[site.name].append(
                    Version(held.ensemble, held.zero_shot, test.ensemble, test.zero_shot)
                )

        run.play(score, lambda: None)
    for site in sites:
        labels, test_labels = pool.labels[site.validation], pool.labels[site.test]
        last = versions[site.name][-1].test
        results = {"newest": (last, False)}
        for images in (len(labels), 12, 4):
            chosen = np.random.default_rng(seed).choice(len(labels), images, replace=False)
            split = "all validation images" if images == len(labels) else f"{images} validation images"
            results[f"best of {split}"] = _answer(versions[site.name], chosen, labels, balanced_accuracy)
            results[f"by accuracy, {split}"] = _answer(versions[site.name], chosen, labels, share_right)
        for name, (answer, zero_shot) in results.items():
            figures = share_right(answer, test_labels), balanced_accuracy(answer, test_labels), zero_shot
            found.setdefault(name, []).append(figures)


def _answer(
    versions: list[Version], chosen: npt.NDArray[np.int64], labels: Labels, score: Score
) -> tuple[Probabilities, bool]:
    """Return what answers on test in the end, and whether it is zero-shot; of equals the newer."""
    scores = [score(version.validation[chosen], labels[chosen]) for version in versions]
    best = max(range(len(versions)), key=lambda number: (scores[number], number))
    zero_shot = score(versions[best].validation_zero_shot[chosen], labels[chosen])
    if scores[best] < zero_shot:
        return versions[best].test_zero_shot, True
    return versions[best].test, False


def balanced_accuracy(probabilities: Probabilities, labels: Labels) -> float:
    """Return the mean recall of the classes that occur."""
    right = probabilities.argmax(axis=1) == labels
    return float(np.mean([right[labels == label].mean() for label in np.unique(labels)]))


if __name__ == "__main__":
    main()
