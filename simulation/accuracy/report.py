"""What the numbers are put into: the report's sections, from the summary to the way it was measured."""

from collections.abc import Sequence

from fedmedclip.simulation.accuracy.content import Content
from fedmedclip.simulation.accuracy.document import Figure, Heading, Item, Table, Text
from fedmedclip.simulation.accuracy.evidence import SITES
from fedmedclip.simulation.accuracy.results import METRICS, MethodResult, Spread
from fedmedclip.simulation.accuracy.runs import ADAPTED, SCORED
from fedmedclip.simulation.accuracy.significance import Comparison
from fedmedclip.simulation.accuracy.verdict import marked, verdict
from fedmedclip.simulation.federation.evaluation import ZERO_SHOT
from fedmedclip.simulation.federation.folder import GLOBAL_TEST

_METRIC_HEADINGS = ("accuracy", "balanced", "macro F1", "AUROC", "calibration error")
_TEST_SETS = {SITES: "the sites' tests, ensemble", GLOBAL_TEST: "the global test, shared head"}


def report_items(content: Content, figures: Sequence[Figure]) -> list[Item]:
    """Return the report, top to bottom."""
    return [
        *[Text(sentence, lead=True) for sentence in verdict(content)],
        Text(content.origin.sentence()),
        Text(_setting(content)),
        Text(content.command, code=True),
        *[Text(f"Note: {note}") for note in content.notes],
        Heading("Summary"),
        Text(
            "Accuracy in %, mean ± standard deviation over the seeds. At the sites each method answers with "
            "all that it has there (its ensemble, where it has a private head), on the global test with its "
            "shared head. Bytes are per site and round, up and down, envelopes included; a reference set "
            "to adapt to comes once for each site." + _pooled(content)
        ),
        summary_table(content),
        *_significance(content),
        *_beside_alone(content),
        *_pick(figures, "accuracy-against-bytes", "learning-curves"),
        *_leave_one_out(content),
        *_ablations(content),
        Heading("Calibration"),
        *_pick(figures, "reliability"),
        Heading("Decisions"),
        *_pick(figures, "decision"),
        Heading("Confusion"),
        *_pick(figures, "confusion"),
        *_every_score(content),
        Heading("How it was measured"),
        *[Text(paragraph) for paragraph in _METHOD],
    ]


def summary_table(content: Content) -> Table:
    """Return one row per method."""
    with_global = GLOBAL_TEST in content.comparisons
    chosen = content.setting.select != "last"
    headings = [
        "method",
        *(["rounds chosen"] if chosen else []),
        "bytes up",
        "bytes down",
        "reference set, once",
        "mean of sites",
        "balanced",
        "worst site",
        *content.site_names,
        "zero-shot, sites",
    ]
    headings += ["global", "global, sites' ensembles"] if with_global else []
    adapts = any(_of(result, GLOBAL_TEST, ADAPTED) for result in content.methods)
    headings += ["global, adapted to it"] if adapts else []
    rows = []
    for result in content.methods:
        cells = [marked(content, result.label)]
        cells += [", ".join(map(str, result.selected_rounds))] if chosen else []
        cells += [f"{result.uplink_bytes_per_round:,.0f}"]
        cells += [f"{result.downlink_bytes_per_round:,.0f}", f"{result.target_bytes:,}"]
        cells += [percent(result.headline(SITES)), percent(result.headline(SITES, "balanced_accuracy"))]
        cells += [percent(result.worst_site)]
        cells += [percent(result.headline(site)) for site in content.site_names]
        cells += [percent(_of(result, SITES, "zero_shot"))]
        if with_global:
            cells += [percent(result.headline(GLOBAL_TEST)), percent(_of(result, GLOBAL_TEST, "ensemble"))]
        cells += [percent(_of(result, GLOBAL_TEST, ADAPTED))] if adapts else []
        rows.append(cells)
    return Table(headings, rows)


def percent(figure: Spread | None) -> str:
    """Return `mean ± spread` in per cent; without spread when there is one seed."""
    if figure is None:
        return "-"
    return f"{100 * figure.mean:.1f}" + (f" ± {100 * figure.std:.1f}" if len(figure.values) > 1 else "")


def _of(result: MethodResult, test_set: str, classifier: str, metric: str = "accuracy") -> Spread | None:
    return result.scores.get(test_set, {}).get(classifier, {}).get(metric)


def _pooled(content: Content) -> str:
    if all(result.regime != "pooled" for result in content.methods):
        return ""
    return (
        " A pooled row is trained on all sites' training images in one place, and tested like the others: "
        "an upper bound, for which no message but the images would have to travel."
    )


def _setting(content: Content) -> str:
    seeds = ", ".join(map(str, content.seeds))
    counted = content.groups
    grouped = f"{counted.images} images in {counted.groups} groups"
    if counted.global_images is not None:
        grouped += f", global test {counted.global_images} in {counted.global_groups}"
    return (
        f"{len(content.methods)} methods on the same embeddings, splits and seeds ({seeds}); "
        f"rounds: {rounds_in_words(content)}, codec {content.codec}, {content.setting.in_words()}, "
        f"{grouped}, {len(content.class_names)} classes: {', '.join(content.class_names)}."
    )


def rounds_in_words(content: Content) -> str:
    """Return the number of rounds, and of which methods it is another."""
    others = {result.method: len(result.curve) for result in content.methods if result.method != ZERO_SHOT}
    said = [f"{method}: {number}" for method, number in others.items() if number != content.rounds]
    return f"{content.rounds} ({', '.join(said)})" if said else str(content.rounds)


def _significance(content: Content) -> list[Item]:
    if len(content.methods) < 2:
        return []
    items: list[Item] = [
        Heading(f"Against {content.reference}"),
        Text(
            "Difference in accuracy, and in balanced accuracy (each class counts alike), on the test "
            "predictions of all seeds together, in points, with its 95 % bootstrap interval; on how many "
            f"groups of images the method is right more often and less often than {content.reference}; p of "
            "McNemar's exact test by group, and the same after Holm's correction over the methods."
        ),
    ]
    for test_set in content.comparisons:
        for metric, compared in (
            ("accuracy", content.comparisons),
            ("balanced accuracy", content.balanced_comparisons),
        ):
            rows = [
                [marked(content, label), *_comparison_cells(found)]
                for label, found in compared[test_set].items()
            ]
            headings = [
                f"{metric}, {_TEST_SETS[test_set]}", "difference", "95 % interval", "better", "worse", "p",
                "p, Holm", "finding",
            ]  # fmt: skip
            items.append(Table(headings, rows))
    return items


def _beside_alone(content: Content) -> list[Item]:
    if not content.beside_alone:
        return []
    items: list[Item] = [
        Heading("What federating gives"),
        Text(
            "Each federated method less the same method trained at each site alone, on the sites' tests; "
            "tested as above, Holm's correction over these rows."
        ),
    ]
    for metric, compared in (
        ("accuracy", content.beside_alone),
        ("balanced accuracy", content.balanced_beside_alone),
    ):
        rows = [[marked(content, label), *_comparison_cells(found)] for label, found in compared.items()]
        headings = [metric, "difference", "95 % interval", "better", "worse", "p", "p, Holm", "finding"]
        items.append(Table(headings, rows))
    return items


def _comparison_cells(found: Comparison) -> list[str]:
    direction = "better" if found.difference > 0 else "worse"
    return [
        f"{100 * found.difference:+.1f}",
        f"{100 * found.low:+.1f} to {100 * found.high:+.1f}",
        f"{found.better} of {found.groups}",
        str(found.worse),
        _p_value(found.p),
        _p_value(found.p_corrected),
        direction if found.significant else "no difference shown",
    ]


def _p_value(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else f"{p:.1e}"


def _leave_one_out(content: Content) -> list[Item]:
    if not content.leave_one_out:
        return []
    sites = list(dict.fromkeys(found.site for found in content.leave_one_out))
    by_key = {(found.label, found.site): found for found in content.leave_one_out}
    labels = list(dict.fromkeys(found.label for found in content.leave_one_out))
    rows = []
    for classifier, label in [("zero_shot", labels[0]), *(("shared", label) for label in labels)]:
        figures = [by_key[label, site].scores[classifier]["accuracy"] for site in sites]
        name = "zero-shot, no training" if classifier == "zero_shot" else label
        mean = sum(figure.mean for figure in figures) / len(figures)
        rows.append([name, *map(percent, figures), f"{100 * mean:.1f}"])
    images = [next(found.images for found in content.leave_one_out if found.site == site) for site in sites]
    headings = [f"{site} ({count} images)" for site, count in zip(sites, images, strict=True)]
    return [
        Heading("A hospital that did not take part"),
        Text(
            "Each hospital in turn is left out of the training; the shared head of the others is tested on "
            "all of its images. Accuracy in %."
        ),
        Table(["method", *headings, "mean"], rows),
    ]


def _ablations(content: Content) -> list[Item]:
    if not content.ablations:
        return []
    by_label = {result.label: result for result in content.methods}
    rows = []
    for label in dict.fromkeys(found.label for found in content.ablations):
        whole = by_label[label]
        rows.append(
            [
                f"{label}, whole", "", percent(whole.headline(SITES)), "",
                percent(whole.headline(GLOBAL_TEST)),
                "", f"{whole.bytes_per_round:,.0f}",
            ]
        )  # fmt: skip
        rows += [
            [
                f"without {found.part}", found.how, percent(found.accuracy), _points(found.change),
                percent(found.global_shared), _points(found.global_change), f"{found.bytes_per_round:,.0f}",
            ]
            for found in content.ablations
            if found.label == label
        ]  # fmt: skip
    return [
        Heading("With a part switched off"),
        Text(
            "Accuracy in %, mean of the sites, and on the global test (shared head). Changes are in points, "
            "to the whole method with the same seed, mean ± standard deviation over the seeds."
        ),
        Table(["method", "how", "sites", "change", "global", "change", "bytes per round"], rows, words=2),
    ]


def _points(figure: Spread | None) -> str:
    if figure is None:
        return ""
    return f"{100 * figure.mean:+.1f}" + (f" ± {100 * figure.std:.1f}" if len(figure.values) > 1 else "")


def _every_score(content: Content) -> list[Item]:
    items: list[Item] = [
        Heading("Every score"),
        Text(
            "AUROC: each class against the rest, averaged over the classes. On the global test private head "
            "and ensemble are the mean over the sites whose heads they are; adapted: a head that was made "
            "of the shared one and of the very images that are tested, without labels, as at a new site."
        ),
    ]
    for test_set in content.methods[0].scores:
        name = {SITES: "mean of the sites", GLOBAL_TEST: "global test"}.get(test_set, test_set)
        rows = []
        for result in content.methods:
            for classifier in SCORED:
                if classifier in result.scores.get(test_set, {}) and _worth_a_row(
                    result, classifier, content
                ):
                    cells = [_decimals(_of(result, test_set, classifier, metric)) for metric in METRICS]
                    rows.append([f"{result.label}: {classifier.replace('_', '-')}", *cells])
        items.append(Table([name, *_METRIC_HEADINGS], rows))
    return items


def _worth_a_row(result: MethodResult, classifier: str, content: Content) -> bool:
    """Zero-shot is the same for every method; an ensemble without a private head is the shared head."""
    if classifier == "zero_shot":
        return result is content.methods[0]
    if result.method == ZERO_SHOT:
        return False
    return classifier != "ensemble" or "private" in result.scores[SITES]


def _decimals(figure: Spread | None) -> str:
    if figure is None:
        return "-"
    return f"{figure.mean:.3f}" + (f" ± {figure.std:.3f}" if len(figure.values) > 1 else "")


def _pick(figures: Sequence[Figure], *beginnings: str) -> list[Figure]:
    return [figure for figure in figures if figure.path.name.startswith(beginnings)]


_METHOD = (
    "One process plays every federation on embeddings that were computed once: local training, codecs, error "
    "feedback and messages are those of the running system, and heads and bytes are the same as over MQTT. "
    "Bytes are MQTT payload bytes: updates, receipts, announcements, status and joining. Byte-identical "
    "images at the sites count once.",
    "A seed sets the split of each site (70 % training, 10 % validation, 20 % test unless the setting "
    "says otherwise), the initial heads and the order of the images; every method gets the same. Splits "
    "keep groups whole, images of one patient or look-alikes, and give each class its share as well as "
    "groups allow. The standard deviation over seeds is dominated by the splits, which move all methods "
    "together; the paired comparison is free of that.",
    "Significance counts groups, not images or predictions: those of one group are right and wrong "
    "together, and a group may be in the test split of several seeds. McNemar's exact test by group: if "
    "neither method is better, a group's summed difference could as well have the other sign, and p is "
    "the share of all signings whose total is as far from 0; for groups of one image and one seed that is "
    "the usual test. For balanced accuracy 10,000 random signings stand for all. Bootstrap: 10,000 "
    "resamples of groups, each with all of its predictions, percentile interval. Images of the global "
    "test with equal embeddings are in one group.",
    "The calibration error (Guo et al. 2017) has 15 bins of equal width, the diagrams ten. Net benefit: "
    "Vickers and Elkin 2006.",
)
