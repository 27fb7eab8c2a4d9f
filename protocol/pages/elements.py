"""HTML out of values: whatever is not `Html` already is text, and is escaped.

Nothing here has a style or a script of its own, so that a page can forbid both.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from typing import Literal

from fedmedclip.protocol.visible import visible


class Html(str):
    """Markup that was made here. No text from elsewhere is ever called so."""

    __slots__ = ()


Child = str | int | float | None | Iterable["Child"]
Kind = Literal["good", "waiting", "bad", "quiet"]

# A shape for each kind, for those who do not see, or print, colours.
_SYMBOLS: dict[Kind, str] = {"good": "●", "waiting": "◐", "bad": "✕", "quiet": "○"}
_VOID = frozenset({"br", "hr", "input", "link", "meta"})


def element(tag: str, *children: Child, **attributes: str | int | float | bool | None) -> Html:
    """Return `<tag attribute="…">children</tag>`.

    Of an attribute's name a final `_` is dropped and others become `-`; None and False leave it out.
    """
    words = [tag]
    for name, value in attributes.items():
        if value is None or value is False:
            continue
        name = name.rstrip("_").replace("_", "-")
        words.append(name if value is True else f'{name}="{escape(visible(str(value)))}"')
    opened = f"<{' '.join(words)}>"
    return Html(opened if tag in _VOID and not children else f"{opened}{joined(children)}</{tag}>")


def joined(children: Iterable[Child]) -> Html:
    """Return children as one piece of HTML."""
    return Html("".join(map(_one, children)))


def _one(child: Child) -> str:
    if child is None:
        return ""
    if isinstance(child, Html):
        return child
    if isinstance(child, str | int | float):
        return escape(visible(str(child)))
    return joined(child)


def badge(kind: Kind, words: str) -> Html:
    """Return a state in words, with the shape and colour of its kind."""
    symbol = element("span", _SYMBOLS[kind], aria_hidden="true")
    return element("span", symbol, " ", words, class_=f"badge {kind}")


def moment(seconds: float, *, ago: bool = False) -> Html:
    """Return a moment in seconds since 1970, in the reader's own time where scripts run, else in UTC.

    With `ago` it is how long ago that is, which the page counts on by itself. What no calendar has is said to
    be so: others may send it.
    """
    try:
        at = datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return element("span", "at no moment that a calendar has")
    return element(
        "time",
        at.strftime("%Y-%m-%d %H:%M:%SZ"),
        datetime=at.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z",
        data_ago=ago,
    )


def facts(pairs: Iterable[tuple[str, Child]], *, sentences: bool = False) -> Html:
    """Return names with their values, as a list of definitions; those without a value are left out.

    Side by side, or below each other where the values are whole `sentences`.
    """
    shown = [(name, value) for name, value in pairs if value is not None]
    return element(
        "dl",
        *(element("div", element("dt", name), element("dd", value)) for name, value in shown),
        class_="sentences" if sentences else None,
    )


def table(
    caption: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[Child]],
    numbers: Iterable[int] = (),
    label: str = "",
) -> Html:
    """Return a table that scrolls in itself; each row's first cell is its heading.

    `numbers` are the places of columns to be set to the right. An empty table is a sentence. Whoever cannot
    see where it is hears `label`, by default that it is this table.
    """
    right = set(numbers)
    body = [
        element(
            "tr",
            *(
                element("th" if place == 0 else "td", cell, scope="row" if place == 0 else None,
                        class_="number" if place in right else None)
                for place, cell in enumerate(row)
            ),
        )
        for row in rows
    ]  # fmt: skip
    if not body:
        return element("p", f"{caption}: none.", class_="faint")
    head = element(
        "tr",
        *(
            element("th", name, scope="col", class_="number" if place in right else None)
            for place, name in enumerate(columns)
        ),
    )
    inside = element("table", element("caption", caption), element("thead", head), element("tbody", *body))
    return element(
        "div", inside, class_="box", role="region", aria_label=label or f"{caption}, a table", tabindex="0"
    )


def folded(summary: str, *inside: Child) -> Html:
    """Return what is shown once its summary is opened."""
    return element("details", element("summary", summary), *inside)


def bytes_in_words(number: float) -> str:
    """Return so many bytes as a person reads them: 312 B, 4.2 kB, 1.3 MB."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:.0f} B"


def button(
    action: str,
    words: str,
    fields: Iterable[tuple[str, str]] = (),
    asked: Iterable[tuple[str, str, str]] = (),
    sure: str = "",
    choices: Mapping[str, str] | None = None,
    optional: Iterable[tuple[str, str, str]] = (),
) -> Html:
    """Return a form that posts to `/do/ACTION`.

    `fields` go along as they are; `asked` are fields to fill in: name, label, and type of input ("text" or
    "number"); `optional` may be left empty, and `choices` gives, by field, the id of a `datalist` of the page
    to choose from. With `sure`, what will happen, the button lies behind a line that is opened first.
    """
    lists = choices or {}
    hidden = [element("input", type_="hidden", name=name, value=value) for name, value in fields]
    inputs = [
        element(
            "label",
            label,
            " ",
            element("input", type_=kind, name=name, required=required, list=lists.get(name)),
        )
        for required, those in ((True, asked), (False, optional))
        for name, label, kind in those
    ]
    form = element(
        "form",
        *hidden,
        *inputs,
        element("button", words, type_="submit"),
        method="post",
        action=f"/do/{action}",
        data_action=True,
    )
    if not sure:
        return form
    return element("details", element("summary", f"{words}…"), element("p", sure), form, class_="act")
