"""Charts as inline SVG: readable without colours, described in words, without script or own style."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from fedmedclip.protocol.pages.elements import Html, element
from fedmedclip.protocol.progress import duration

_WIDTH, _HEIGHT = 640, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 130, 14, 36
_WIDEST_BAR = 40.0
# Lines differ by their dashes and markers first: a page is printed in black and white.
_DASHES = (None, "7 3", "2 3", "9 3 2 3", "12 4")
_MARKERS = "○□△◇×"


@dataclass(frozen=True)
class Series:
    """A line of points (x, y), None where there is no value; `low` and `high` are an interval about each."""

    name: str
    x: Sequence[float]
    y: Sequence[float | None]
    low: Sequence[float | None] = ()
    high: Sequence[float | None] = ()


@dataclass(frozen=True)
class Lane:
    """A row of a time line: `spans` (from, to) are drawn as a bar, `marks` (when, symbol, words) on it."""

    name: str
    spans: Sequence[tuple[float, float]] = ()
    marks: Sequence[tuple[float, str, str]] = field(default=())


@dataclass(frozen=True)
class _Scale:
    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> str:
        share = 0.5 if self.high == self.low else (value - self.low) / (self.high - self.low)
        return f"{self.start + share * (self.end - self.start):.1f}"


def line_chart(
    title: str,
    described: str,
    series: Sequence[Series],
    x_name: str,
    y_range: tuple[float, float] | None = None,
    percent: bool = False,
) -> Html:
    """Return lines over a common x, at most five, each with its name at its end."""
    values = [y for one in series for y in (*one.y, *one.low, *one.high) if y is not None]
    places = [x for one in series for x in one.x]
    if not values:
        return element("p", f"{title}: nothing yet.", class_="faint")
    low, high = y_range or _padded(min(values), max(values))
    x_scale = _Scale(min(places), max(places), _LEFT, _WIDTH - _RIGHT)
    y_scale = _Scale(low, high, _HEIGHT - _BOTTOM, _TOP)
    drawn = [_axes(x_scale, y_scale, x_name, percent)]
    ends: list[float] = []
    for number, one in enumerate(series[: len(_DASHES)]):
        drawn += _band(one, x_scale, y_scale)
        drawn += _line(one, number, x_scale, y_scale, ends)
    return _svg(title, described, drawn, _HEIGHT)


def bar_chart(
    title: str,
    described: str,
    bars: Sequence[tuple[float, float]],
    x_name: str,
    budget: float | None = None,
    budget_name: str = "budget",
) -> Html:
    """Return bars (x, height); the `budget`, where there is one, is a dashed line with its name."""
    if not bars:
        return element("p", f"{title}: nothing yet.", class_="faint")
    tallest = max(max(height for _, height in bars), budget or 0.0) or 1.0
    xs = [x for x, _ in bars]
    room = (_WIDTH - _LEFT - _RIGHT) / max(max(xs) - min(xs) + 1, 1)
    x_scale = _Scale(min(xs), max(xs) + 1, _LEFT, _WIDTH - _RIGHT)
    y_scale = _Scale(0.0, 1.05 * tallest, _HEIGHT - _BOTTOM, _TOP)
    ground, width = _HEIGHT - _BOTTOM, min(max(0.8 * room, 1.0), _WIDEST_BAR)
    drawn = [_axes(_Scale(min(xs), max(xs), _LEFT + room / 2, _WIDTH - _RIGHT - room / 2), y_scale, x_name)]
    drawn += [
        element(
            "rect",
            x=f"{float(x_scale(x)) + (room - width) / 2:.1f}",
            y=y_scale(height),
            width=f"{width:.1f}",
            height=f"{max(ground - float(y_scale(height)), 0.0):.1f}",
            class_="bar",
        )
        for x, height in bars
    ]
    if budget is not None:
        y = y_scale(budget)
        drawn.append(element("line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=y, y2=y, class_="budget"))
        drawn.append(element("text", budget_name, x=_WIDTH - _RIGHT + 6, y=y, class_="label"))
    return _svg(title, described, drawn, _HEIGHT)


def time_line(
    title: str, described: str, lanes: Sequence[Lane], start: float, end: float, end_name: str = "now"
) -> Html:
    """Return a lane for each party, from `start` to `end` in seconds; marks are symbols, explained below."""
    if not lanes:
        return element("p", f"{title}: nothing yet.", class_="faint")
    lane_height, left = 22, 130
    height = _TOP + lane_height * len(lanes) + 24
    scale = _Scale(start, end, left, _WIDTH - 12)
    drawn = []
    for number, lane in enumerate(lanes):
        middle = _TOP + lane_height * (number + 0.5)
        drawn.append(element("text", lane.name[:18], x=left - 8, y=f"{middle + 4:.1f}", class_="lane"))
        drawn.append(
            element("line", x1=left, x2=_WIDTH - 12, y1=f"{middle:.1f}", y2=f"{middle:.1f}", class_="grid")
        )
        for begun, over in lane.spans:
            x = float(scale(max(begun, start)))
            width = max(float(scale(min(over, end))) - x, 1.0)
            drawn.append(
                element("rect", x=f"{x:.1f}", y=f"{middle - 5:.1f}", width=f"{width:.1f}", height=10,
                        class_="span")
            )  # fmt: skip
        for at, symbol, words in lane.marks:
            if start <= at <= end:
                inside = (element("title", words), symbol)
                drawn.append(element("text", *inside, x=scale(at), y=f"{middle + 5:.1f}", class_="mark"))
    drawn.append(element("text", end_name, x=_WIDTH - 12, y=height - 6, class_="tick end"))
    for before in _times(end - start):
        place = scale(end - before)
        drawn.append(element("line", x1=place, x2=place, y1=_TOP, y2=height - 20, class_="grid"))
        drawn.append(element("text", f"{duration(before)} before", x=place, y=height - 6, class_="tick"))
    return _svg(title, described, drawn, height)


def _times(seconds: float) -> list[float]:
    """Return up to three moments before the end of a span, as round as people say them."""
    steps = (10, 20, 60, 120, 300, 600, 1200, 3600, 7200, 14_400, 21_600, 43_200, 86_400)
    step = next((step for step in steps if seconds / step <= 4), seconds / 3)
    return [step * place for place in (1, 2, 3) if step * place <= 0.92 * seconds]


def _svg(title: str, described: str, drawn: Sequence[Html], height: float) -> Html:
    drawing = element(
        "svg",
        element("title", title),
        element("desc", described),
        *drawn,
        viewBox=f"0 0 {_WIDTH} {height:.0f}",
        role="img",
        aria_label=f"{title}. {described}",
        class_="chart",
    )
    # On a phone it scrolls, so that its words stay large enough to read.
    return element("div", drawing, class_="box", role="group", aria_label=f"{title}, a chart", tabindex="0")


def _padded(low: float, high: float) -> tuple[float, float]:
    room = 0.08 * (high - low) or 0.05 * abs(high) or 0.5
    return low - room, high + room


def _axes(x_scale: _Scale, y_scale: _Scale, x_name: str, percent: bool = False) -> Html:
    parts = []
    for value in _ticks(y_scale.low, y_scale.high):
        y = y_scale(value)
        parts.append(element("line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=y, y2=y, class_="grid"))
        shown = f"{value:.0%}" if percent else _short(value)
        parts.append(element("text", shown, x=_LEFT - 6, y=f"{float(y) + 4:.1f}", class_="tick end"))
    for value in sorted({round(tick) for tick in _ticks(x_scale.low, x_scale.high, 6)}):
        if x_scale.low <= value <= x_scale.high:
            parts.append(element("text", value, x=x_scale(value), y=_HEIGHT - _BOTTOM + 15, class_="tick"))
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(element("text", x_name, x=middle, y=_HEIGHT - 4, class_="tick"))
    return element("g", *parts)


def _ticks(low: float, high: float, number: int = 5) -> list[float]:
    """Return about so many round values between two others: steps of 1, 2 or 5 times a power of ten."""
    if high <= low:
        return [low]
    rough = (high - low) / number
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(size * power for size in (1, 2, 5, 10) if size * power >= 0.999 * rough)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [place * step for place in range(first, last + 1)]


def _short(value: float) -> str:
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if abs(value) >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.3g}"


def _band(one: Series, x_scale: _Scale, y_scale: _Scale) -> list[Html]:
    edge = [
        (x, low, high)
        for x, low, high in zip(one.x, one.low, one.high, strict=False)
        if low is not None and high is not None
    ]
    if len(edge) < 2:
        return []
    there = [f"{x_scale(x)},{y_scale(high)}" for x, _, high in edge]
    back = [f"{x_scale(x)},{y_scale(low)}" for x, low, _ in reversed(edge)]
    return [element("polygon", points=" ".join(there + back), class_="band")]


def _line(one: Series, number: int, x_scale: _Scale, y_scale: _Scale, ends: list[float]) -> list[Html]:
    points = [(x, y) for x, y in zip(one.x, one.y, strict=True) if y is not None]
    if not points:
        return []
    marker, drawn = _MARKERS[number], []
    placed = [f"{x_scale(x)},{y_scale(y)}" for x, y in points]
    drawn.append(
        element(
            "polyline",
            points=" ".join(placed),
            class_=f"line series-{number}",
            stroke_dasharray=_DASHES[number],
        )
    )
    for x, y in points[:: max(1, len(points) // 12)]:
        drawn.append(
            element(
                "text", marker, x=x_scale(x), y=f"{float(y_scale(y)) + 4:.1f}", class_=f"mark series-{number}"
            )
        )
    # Names at the ends of lines that meet are moved apart.
    end = float(y_scale(points[-1][1]))
    while any(abs(end - other) < 13 for other in ends):
        end += 13
    ends.append(end)
    drawn.append(
        element("text", f"{marker} {one.name}", x=_WIDTH - _RIGHT + 8, y=f"{end + 4:.1f}", class_="label")
    )
    return drawn
