"""What a codec costs in accuracy against sending everything, and how sure that is."""

from collections.abc import Callable, Mapping, Sequence

from fedmedclip.simulation.bandwidth.results import UNCOMPRESSED, final_accuracy, final_accuracy_global
from fedmedclip.simulation.bandwidth.runs import Run
from fedmedclip.simulation.differences import Difference, mean_difference


def difference_to_uncompressed(runs: Mapping[str, Sequence[Run]]) -> dict[str, Difference]:
    """Return each codec's difference to the uncompressed runs of the same seeds; empty without these.

    Seeds differ in splits and first heads, which move all codecs together: this difference is much surer than
    the accuracies themselves.
    """
    return _differences(runs, final_accuracy)


def global_difference_to_uncompressed(runs: Mapping[str, Sequence[Run]]) -> dict[str, Difference]:
    """Return the same on the global test; empty when there is none."""
    return _differences(runs, final_accuracy_global)


def _differences(
    runs: Mapping[str, Sequence[Run]], accuracy_of: Callable[[Run], float | None]
) -> dict[str, Difference]:
    reference = {run.seed: accuracy_of(run) for run in runs.get(UNCOMPRESSED, ())}
    found: dict[str, Difference] = {}
    for codec, of_seeds in runs.items():
        pairs = [(accuracy_of(run), reference.get(run.seed)) for run in of_seeds]
        differences = [own - other for own, other in pairs if own is not None and other is not None]
        if differences:
            found[codec] = mean_difference(differences)
    return found
