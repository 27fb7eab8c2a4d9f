"""Which differences between methods are more than luck: pairs of cases, tested by group."""

from collections.abc import Sequence

from fedmedclip.protocol.seeds import derive_seed
from fedmedclip.simulation.accuracy.cases import Case
from fedmedclip.simulation.accuracy.evidence import SITES, Evidence, test_parts
from fedmedclip.simulation.accuracy.significance import Comparison, compare, compare_balanced, holm

Comparisons = dict[str, Comparison]
"""By the label of the case that is compared with the reference."""


def comparisons(
    evidence: Evidence, cases: Sequence[Case], reference: Case, test_set: str
) -> tuple[Comparisons, Comparisons]:
    """Compare every other case with the reference on a test set of all seeds together.

    Returns the comparisons of accuracy and those of balanced accuracy. Cases, or a reference, without an
    answer there are left out.
    """
    others = [(case.label, case, reference) for case in cases if case != reference]
    return compare_pairs(evidence, others, test_set)


def beside_alone(evidence: Evidence, cases: Sequence[Case]) -> tuple[Comparisons, Comparisons]:
    """Compare each federated case with the same method trained at each site alone, on the sites' tests.

    That is what federating gives; cases without such a row are left out.
    """
    alone = {case.method: case for case in reversed(cases) if case.regime == "local-only"}
    pairs = [
        (case.label, case, alone[case.method])
        for case in cases
        if case.regime == "federated" and case.method in alone
    ]
    return compare_pairs(evidence, pairs, SITES)


def compare_pairs(
    evidence: Evidence, pairs: Sequence[tuple[str, Case, Case]], test_set: str
) -> tuple[Comparisons, Comparisons]:
    """Compare the first case of each (name, case, reference) with the second; accuracy, balanced accuracy.

    Holm's correction is over all pairs. Pairs without an answer there are left out.
    """
    plain, balanced = {}, {}
    for name, case, reference in pairs:
        if not all(test_parts(evidence.of(one)[0], test_set) for one in (case, reference)):
            continue
        probabilities, labels, groups = evidence.pooled(case, test_set)
        of_reference, _, _ = evidence.pooled(reference, test_set)
        correct = probabilities.argmax(axis=1) == labels
        before = of_reference.argmax(axis=1) == labels
        seed = derive_seed(0, purpose=f"bootstrap {test_set} {name}")
        plain[name] = compare(correct, before, groups, seed)
        balanced[name] = compare_balanced(correct, before, groups, labels, seed)
    return holm(plain), holm(balanced)
