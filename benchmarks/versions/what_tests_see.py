"""How often the paired tests call a new version worse, by images of the validation split and its accuracy.

    python -m benchmarks.versions.what_tests_see

Made-up answers: four classes, groups of two images on average that go together, the version that answers now
right in 85 of 100 images. The two are right and wrong independently of each other, which is the hardest case.
No image of any data set has a say.
"""

import argparse
from statistics import NormalDist

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from fedmedclip.edge_client.versions.comparison import paired_tests

NAMES = ["a", "b", "c", "d"]
SIGNIFICANCE = 0.05
_BEFORE = 0.85
_AFTER = (0.85, 0.8, 0.75, 0.7, 0.6, 0.4)
_IMAGES = (20, 60, 120, 400)
_OF_A_GROUP = 2
_OWN_LUCK = 0.5
_SHARPNESS = 3.0


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000)
    arguments = parser.parse_args()
    table = Table(title=f"called worse than one of accuracy {_BEFORE}, of {arguments.trials} trials")
    table.add_column("images", justify="right")
    for after in _AFTER:
        table.add_column(f"{after}", justify="right")
    for images in _IMAGES:
        shares = [share_called_worse(images, _BEFORE, after, arguments.trials) for after in _AFTER]
        table.add_row(str(images), *(f"{share:.1%}" for share in shares))
    Console().print(table)


def share_called_worse(images: int, before: float, after: float, trials: int) -> float:
    """Return how often a version of accuracy `after` is called worse than one of accuracy `before`."""
    generator = np.random.default_rng(1)
    found = []
    for _ in range(trials):
        labels = generator.integers(0, len(NAMES), images)
        groups = generator.integers(0, images // _OF_A_GROUP, images)
        newer, active = (_answers(generator, labels, groups, accuracy) for accuracy in (after, before))
        tests = paired_tests(newer, active, labels, groups, NAMES)
        found.append(any(test.p_corrected <= SIGNIFICANCE for test in tests))
    return float(np.mean(found))


def _answers(
    generator: np.random.Generator,
    labels: npt.NDArray[np.int64],
    groups: npt.NDArray[np.int64],
    accuracy: float,
) -> npt.NDArray[np.float32]:
    """Return probabilities of a classifier that is right so often; images of one group go together."""
    luck = generator.normal(size=groups.max() + 1)[groups]
    luck += _OWN_LUCK * generator.normal(size=len(labels))
    right = luck / (1 + _OWN_LUCK**2) ** 0.5 < NormalDist().inv_cdf(accuracy)
    wrong = (labels + 1 + generator.integers(0, len(NAMES) - 1, len(labels))) % len(NAMES)
    logits = generator.normal(size=(len(labels), len(NAMES)))
    logits[np.arange(len(labels)), np.where(right, labels, wrong)] += _SHARPNESS
    odds = np.exp(logits)
    probabilities: npt.NDArray[np.float32] = (odds / odds.sum(axis=1, keepdims=True)).astype(np.float32)
    return probabilities


if __name__ == "__main__":
    main()
