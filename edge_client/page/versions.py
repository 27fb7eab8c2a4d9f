"""Drawing the versions that are kept at the site: how good each is, which answers, and the buttons."""

from fedmedclip.edge_client.page.view import SiteView, Version, Versions
from fedmedclip.protocol.pages.charts import Series, line_chart
from fedmedclip.protocol.pages.elements import (
    Child,
    Html,
    Kind,
    badge,
    button,
    element,
    joined,
    moment,
    table,
)

_RULES = {
    "guarded": "A new version answers only once it has shown, on this hospital's own images, that it is not "
    "worse than the one that does.",
    "by hand": "A new version answers only once you say so.",
    "always": "A new version answers at once, without a comparison.",
}
# Of versions that are not the active one, by their verdict.
_STATES: dict[str, tuple[Kind, str]] = {
    "activated": ("quiet", "was active"),
    "by hand": ("quiet", "was active, by hand"),
    "left": ("quiet", "left, by hand"),
    "set aside": ("bad", "set aside"),
    "waits": ("waiting", "waits for you"),
}
_MOST_ROWS = 40
_MOST_POINTS = 120


def draw_versions(view: SiteView, buttons: bool) -> Html:
    """Return the inside of "Versions"."""
    versions = view.versions
    if versions is None or not versions.kept:
        return element("p", "No version is here yet: the first comes after the first round.", class_="faint")
    back = button(
        "rollback", "Roll back",
        sure="The version that answered before the present one answers again, at once.",
    ) if buttons else None  # fmt: skip
    newest_first = list(reversed(versions.kept))[:_MOST_ROWS]
    columns = ["Version", "State", "Balanced accuracy", "Zero-shot", "Shared", "Private", "Calibration error",
               "Came", "Why"]  # fmt: skip
    return joined(
        [
            element("p", _RULES.get(versions.activate, "")),
            back,
            _chart(versions),
            table(
                "Versions, newest first; figures on the validation split",
                [*columns, *(["Change"] if buttons else [])],
                [_row(version, buttons) for version in newest_first],
                numbers=[2, 3, 4, 5, 6],
            ),
        ]
    )


def _chart(versions: Versions) -> Html:
    run = versions.kept[-1].run
    shown = [version for version in versions.kept if version.run == run][-_MOST_POINTS:]
    x = [float(version.version) for version in shown]
    title = "Balanced accuracy by version, of the newest run"
    lines = [
        Series(
            "what answers",
            x,
            [version.balanced_accuracy for version in shown],
            [version.low for version in shown],
            [version.high for version in shown],
        ),
        Series("zero-shot", x, [version.zero_shot for version in shown]),
    ]
    described = _described(shown)
    chart = line_chart(title, described, lines, "version", percent=True)
    return joined([element("h3", title), chart, element("p", described, class_="faint")])


def _described(shown: list[Version]) -> str:
    measured = [version for version in shown if version.balanced_accuracy is not None]
    if not measured:
        return "Nothing was measured: the validation split has no images."
    first, last = measured[0], measured[-1]
    best = max(measured, key=lambda version: version.balanced_accuracy or 0.0)
    return (
        f"From {first.balanced_accuracy or 0:.1%} at version {first.version} to "
        f"{last.balanced_accuracy or 0:.1%} at version {last.version}; the best is version {best.version} "
        f"with {best.balanced_accuracy or 0:.1%}. The shade is an approximate 95 % interval, of "
        f"{last.images} validation images."
    )


def _row(version: Version, buttons: bool) -> list[Child]:
    state = badge("good", "active") if version.active else _verdict(version)
    row: list[Child] = [
        element("span", f"{version.version}", title=f"called {version.name}"),
        state,
        _with_interval(version),
        _percent(version.zero_shot),
        _percent(version.shared),
        _percent(version.private),
        "" if version.calibration_error is None else f"{version.calibration_error:.3f}",
        moment(version.made_at),
        version.reason + (f" ({version.by})" if version.by and version.verdict == "by hand" else ""),
    ]
    if buttons:
        words = f"Activate {version.version}"
        row.append("" if version.active else button("activate", words, [("version", version.name)]))
    return row


def _verdict(version: Version) -> Html:
    return badge(*_STATES.get(version.verdict, ("quiet", version.verdict)))


def _with_interval(version: Version) -> str:
    if version.low is None or version.high is None:
        return _percent(version.balanced_accuracy)
    return f"{_percent(version.balanced_accuracy)} ({version.low:.0%} to {version.high:.0%})"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"
