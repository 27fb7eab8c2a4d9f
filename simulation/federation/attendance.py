"""Which sites can learn, be tested and send: what a person should know before hours of rounds."""

from collections.abc import Mapping, Sequence

from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.simulation.federation.experiment import Experiment
from fedmedclip.simulation.federation.feature_pool import FeaturePool
from fedmedclip.simulation.federation.virtual_sites import VirtualSites


def attendance(
    experiments: Sequence[Experiment], pool: FeaturePool, sites: Mapping[int, VirtualSites]
) -> list[str]:
    """Return a line for each thing that keeps some of the sites of a seed out; none where all take part.

    Raises InvalidInputError where in some round of an experiment no site at all may send what it learnt.
    """
    lines = []
    left_out = {seed: dealt.left_out for seed, dealt in sites.items()}
    if any(left_out.values()):
        lines.append(f"sites with fewer than 2 training images, which take no part: {_by_seed(left_out)}")
    untested = {
        seed: sum(not len(site.test) for site in dealt.sites) for seed, dealt in sites.items()
    }  # fmt: skip
    if any(untested.values()):
        lines.append(f"sites without test images, which count in no accuracy: {_by_seed(untested)}")
    kept_back: dict[str, list[str]] = {}
    for experiment in experiments:
        if not experiment.federated or experiment.left_out is not None:
            continue
        counts = {seed: len(_withheld(experiment, pool, seed, dealt)) for seed, dealt in sites.items()}
        if any(counts.values()):
            methods = kept_back.setdefault(_by_seed(counts), [])
            methods += [experiment.method] * (experiment.method not in methods)
    for counts_in_words, methods in kept_back.items():
        lines.append(
            f"sites that the floors let send nothing, with {', '.join(methods)}: {counts_in_words}; they "
            "only train their private heads, and --no-floors lets them send"
        )
    return lines


def _by_seed(counts: Mapping[int, int]) -> str:
    return ", ".join(f"{count} with seed {seed}" for seed, count in counts.items() if count)


def _withheld(experiment: Experiment, pool: FeaturePool, seed: int, dealt: VirtualSites) -> set[str]:
    """Return the sites that send nothing."""
    reasons = {
        site.name: experiment.floors.reason_to_keep(experiment.method, pool.labels[site.train])
        for site in dealt.sites
    }
    for number in range(1, experiment.rounds + 1):
        chosen = dealt.participants(experiment.sites_per_round, seed, number)
        if all(reasons[site.name] for site in chosen):
            raise InvalidInputError(
                f"{experiment.method}, seed {seed}, round {number}: none of {len(chosen)} sites may send "
                f"what it learnt ({reasons[chosen[0].name]}); give fewer or larger sites, or --no-floors"
            )
        if experiment.sites_per_round is None:
            break
    return {name for name, reason in reasons.items() if reason}
