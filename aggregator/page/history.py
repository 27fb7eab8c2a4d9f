"""What came of the rounds: how good each version is, what they cost in bytes, versions, and events."""

from collections.abc import Sequence

from fedmedclip.aggregator.chronicle import Happening
from fedmedclip.aggregator.page.steering import roll_back_button
from fedmedclip.aggregator.page.view import View
from fedmedclip.aggregator.version_metrics import VersionFigures
from fedmedclip.protocol.codecs import delta_codec_named
from fedmedclip.protocol.errors import CodecError, InvalidInputError
from fedmedclip.protocol.pages.charts import Series, bar_chart, line_chart
from fedmedclip.protocol.pages.elements import (
    Child,
    Html,
    badge,
    bytes_in_words,
    element,
    joined,
    moment,
    table,
)

_EVENTS, _POINTS, _MANY = 100, 200, 20
_DIGEST_CHARACTERS = 16


def accuracy(view: View) -> Html:
    """Return how good each version is at the sites that say so."""
    told = [one for one in view.status.versions if one.weighted_mean is not None][-_POINTS:]
    if not told:
        return element(
            "p",
            "No site has shared figures of a version yet. A site shares them where its policy lets it, after "
            "it has tried the version on images that it keeps for that.",
            class_="faint",
        )
    versions = [one.version for one in told]
    lines = [
        _series("mean of all sites", versions, [(one.weighted_mean, one.interval) for one in told]),
        _series("worst site", versions, [(one.worst, one.worst_interval) for one in told]),
    ]
    best = next((one for one in told if one.best), None)
    newest = told[-1]
    said = f"Version {newest.version} has a mean of {newest.weighted_mean:.1%} over {newest.sites} sites."
    if best is not None:
        said += f" The best is version {best.version}, with {best.weighted_mean:.1%}."
    described = f"{said} {len(told)} versions; all values are in the table below."
    rows = [_figures_row(one) for one in reversed(told)]
    columns = ["Version", "Best", "Mean", "95 %", "Worst site", "Its accuracy", "Sites"]
    return joined(
        [
            element("p", said),
            line_chart("Accuracy of each version", described, lines, "version", percent=True),
            _folded("All values", table("Accuracy of each version", columns, rows, numbers=[2, 3, 5, 6])),
        ]
    )


def _series(
    name: str, versions: Sequence[int], values: Sequence[tuple[float | None, tuple[float, float] | None]]
) -> Series:
    return Series(
        name,
        versions,
        [value for value, _ in values],
        [None if interval is None else interval[0] for _, interval in values],
        [None if interval is None else interval[1] for _, interval in values],
    )


def _figures_row(one: VersionFigures) -> list[Child]:
    interval = None if one.interval is None else f"{one.interval[0]:.1%} to {one.interval[1]:.1%}"
    return [
        one.version,
        badge("good", "best") if one.best else None,
        _percent(one.weighted_mean),
        interval,
        one.worst_site,
        _percent(one.worst),
        one.sites,
    ]


def _percent(value: float | None) -> str | None:
    return None if value is None else f"{value:.1%}"


def traffic(view: View) -> Html:
    """Return what each round cost in bytes, against what the codec of the updates keeps to."""
    rounds = list(view.status.traffic)[-_POINTS:]
    if not rounds:
        return element("p", "Nothing is counted yet.", class_="faint")
    budget, of_updates = budget_bytes(view.plan.uplink_codec), len(view.status.members)
    limit = None if budget is None or not of_updates else budget * of_updates
    said = "Bytes that the aggregator received in each round: MQTT payloads, as the sites sent them."
    if limit is not None and budget is not None:
        said += (
            f" The dashed line is the budget: {bytes_in_words(budget)} for each of {of_updates} updates, as "
            f"{view.plan.uplink_codec} has it."
        )
    bars = [(one.round_number, one.received_bytes) for one in rounds]
    rows: list[list[Child]] = [
        [one.round_number, bytes_in_words(one.received_bytes), bytes_in_words(one.sent_bytes)]
        for one in reversed(rounds)
    ]
    total = sum(one.received_bytes for one in rounds)
    described = f"{bytes_in_words(total)} in {len(rounds)} rounds; all values are in the table below."
    return joined(
        [
            element("p", said),
            bar_chart("Bytes received in each round", described, bars, "round", limit),
            _folded("All values", table("Bytes", ["Round", "Received", "Sent"], rows, numbers=[1, 2])),
        ]
    )


def budget_bytes(codec: str) -> float | None:
    """Return to how many bytes a codec keeps an update, where its name says so."""
    try:
        budget = getattr(delta_codec_named(codec), "budget", None)
    except (CodecError, InvalidInputError):
        return None
    return float(budget) if isinstance(budget, int | float) else None


def versions(view: View, may_change: bool) -> Html:
    """Return the versions that are kept, newest first, each with what leads back to it."""
    made = {one.round_number: one for one in view.happenings if one.kind == "made"}
    by_version = {one.version: one for one in view.status.versions}
    rows: list[list[Child]] = []
    for version, digest in view.digests:
        how, figures = made.get(version), by_version.get(version)
        row: list[Child] = [
            version,
            None if how is None else moment(how.at),
            element("code", digest.hex()[:_DIGEST_CHARACTERS]),
            how.words if how else ("drawn from the seed" if version == 0 else None),
            _percent(figures.weighted_mean) if figures else None,
        ]
        if may_change:
            row.append(roll_back_button(version) if version != view.status.version else "the newest")
        rows.append(row)
    columns = ["Version", "Made", "SHA-256 of its head", "Of the updates", "Accuracy"]
    columns += ["Go back"] if may_change else []
    return table("The newest versions", columns, rows, numbers=[4])


def events(view: View) -> Html:
    """Return what happened, newest first. What each of many sites delivered is left to the time line."""
    many = len(view.status.members) > _MANY
    told = [one for one in view.happenings if not (many and one.kind == "delivered")][-_EVENTS:]
    rows = [_event_row(one) for one in reversed(told)]
    return table(
        "The newest events" if len(told) == _EVENTS else "Events", ["When", "Round", "Site", "What"], rows
    )


def _event_row(one: Happening) -> list[Child]:
    what = f"version {one.round_number} made" if one.kind == "made" else one.kind
    between = " " if one.kind == "made" else ": "
    said = f"{what}{between}{one.words}" if one.words else what
    return [moment(one.at), one.round_number, one.site or None, said]


def _folded(name: str, inside: Html) -> Html:
    return element("details", element("summary", name), inside)
