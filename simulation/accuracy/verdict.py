"""What a report says first: how the reference stands to the other methods, by the paired tests."""

from collections.abc import Mapping

from fedmedclip.simulation.accuracy.content import Content
from fedmedclip.simulation.accuracy.evidence import SITES
from fedmedclip.simulation.accuracy.significance import Comparison
from fedmedclip.simulation.federation.folder import GLOBAL_TEST

MARK = "†"
_WHERE = {SITES: "On the sites' tests", GLOBAL_TEST: "On the global test"}


def verdict(content: Content) -> list[str]:
    """Return a sentence for each test set with comparisons, or one that says that there are none.

    Numbers are those of `content.comparisons`: better and worse are so by the paired test by group after
    Holm's correction, and the interval is the paired bootstrap's, of the most accurate of the other methods.
    A last sentence names the methods whose constants were chosen on this data.
    """
    sentences = [
        _standing(_WHERE[test_set], content.reference, found)
        for test_set, found in content.comparisons.items()
        if found
    ]
    return [*(sentences or [_alone(content)]), *_chosen_here(content)]


def _standing(where: str, reference: str, found: Mapping[str, Comparison]) -> str:
    """Comparisons are of the others with the reference: where they are worse, it is better."""
    better = sum(other.significant and other.difference < 0 for other in found.values())
    worse = sum(other.significant and other.difference > 0 for other in found.values())
    label, best = max(found.items(), key=lambda item: item[1].difference)
    if len(found) == 1:
        finding = "better than" if better else "worse than" if worse else "not shown to differ from"
        standing = f"{finding} {label}, which"
    else:
        standing = (
            f"better than {_count(better)} of the {len(found)} other methods, worse than {_count(worse)}, "
            f"and not shown to differ from {_count(len(found) - better - worse)}; "
            f"the most accurate other one, {label},"
        )
    return (
        f"{where} {reference} is {standing} differs from it by {_points(best.difference)} points "
        f"of accuracy (95 % interval {_points(best.low)} to {_points(best.high)}, {best.groups} groups of "
        "images)."
    )


def _chosen_here(content: Content) -> list[str]:
    if not content.chosen_here:
        return []
    return [
        f"{MARK} Constants or default settings of {', '.join(content.chosen_here)} were chosen on this data "
        f"set ({content.data_set}), with its test figures in sight: what is said of them here is no evidence "
        "for other data."
    ]


def marked(content: Content, label: str) -> str:
    """Return a method's label, with a mark where its constants were chosen on this data."""
    return f"{label} {MARK}" if label in content.chosen_here else label


def _alone(content: Content) -> str:
    result = next(result for result in content.methods if result.label == content.reference)
    accuracy = result.headline(SITES)
    right = "" if accuracy is None else f"is right on {100 * accuracy.mean:.1f} % of the sites' tests, and "
    return f"{content.reference} {right}was compared with no other method."


def _points(share: float) -> str:
    return f"{100 * share:+.1f}"


def _count(number: int) -> str:
    return str(number) if number else "none"
