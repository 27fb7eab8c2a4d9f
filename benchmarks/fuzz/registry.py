"""All targets, by name."""

from benchmarks.fuzz import (
    bundles,
    codecs,
    configurations,
    enrolment,
    heads,
    http_door,
    messages,
    parties,
    stores,
)
from benchmarks.fuzz.target import Target

TARGETS: dict[str, Target] = {
    target.name: target
    for module in (messages, codecs, heads, bundles, configurations, enrolment, parties, stores, http_door)
    for target in module.TARGETS
}


def inputs_of_each(targets: list[Target], inputs: int) -> dict[str, int]:
    """Return how many of all inputs each target takes: at least one, the others by weight."""
    total = sum(target.weight for target in targets)
    return {target.name: max(1, round(inputs * target.weight / total)) for target in targets}
