"""The whole of a page: head, navigation, sections, and the line that says whether it is live."""

from collections.abc import Iterable, Mapping
from importlib.resources import files

from fedmedclip.protocol.pages.elements import Html, element, joined
from fedmedclip.protocol.pages.page import Page, Rendered
from fedmedclip.protocol.pages.sessions import LONGEST_NAME

STYLE = (files(__package__) / "page.css").read_bytes()
SCRIPT = (files(__package__) / "page.js").read_bytes()

SECURITY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""The Content-Security-Policy of all pages: nothing from elsewhere, nothing inline."""
REFERRER = "same-origin"
"""With "no-referrer" a browser would hide by which page a form was sent: its `Origin` is "null" then."""


def whole_page(page: Page, rendered: Mapping[str, Rendered], may_change: bool, may_log_in: bool) -> bytes:
    """Return the page as a document. `may_log_in` says whether giving the token would allow changes."""
    sections = [
        element(
            "section",
            element("h2", section.title, id=f"{section.name}-title"),
            element("div", rendered[section.name].html, class_="inside"),
            id=section.name,
            aria_labelledby=f"{section.name}-title",
            data_mark=rendered[section.name].mark,
        )
        for section in page.sections
    ]
    links = [element("li", element("a", section.title, href=f"#{section.name}")) for section in page.sections]
    header = element(
        "header",
        element("h1", page.title),
        element("p", page.about),
        element("p", "As of when it was loaded.", id="live", role="status"),
        element("nav", element("ul", *links), aria_label="Sections"),
    )
    said = element("p", id="said", role="status", class_="said")
    return _document(page.title, [header, element("main", said, *sections), _footer(may_change, may_log_in)])


def small_page(title: str, *inside: Html) -> bytes:
    """Return a page without sections: a question or an answer."""
    main = element("main", element("h1", title), *inside)
    return _document(title, [main])


def login_page(wrong: str = "") -> bytes:
    """Return the page that asks for the token."""
    form = element(
        "form",
        element(
            "label",
            "Token ",
            element("input", type_="password", name="token", required=True, autocomplete="current-password"),
        ),
        element(
            "label",
            "Your name, for the record (if you like) ",
            element("input", type_="text", name="name", maxlength=str(LONGEST_NAME), autocomplete="name"),
        ),
        element("button", "Log in", type_="submit"),
        method="post",
        action="/login",
    )
    why = element("p", wrong, class_="alarm", role="alert") if wrong else None
    where = element(
        "p",
        "It is the first line of the token file: that which the configuration names, else page.token "
        "in the state folder.",
    )
    return small_page("Who is there?", *([why] if why else []), where, form)


def _footer(may_change: bool, may_log_in: bool) -> Html:
    inside: list[Html | str] = ["Everything here is on the command line, too: fedmedclip --help. "]
    if may_change:
        form = element("form", element("button", "Log out", type_="submit"), method="post", action="/logout")
        inside.append(form)
    elif may_log_in:
        inside.append(element("a", "Log in to change something", href="/login"))
    return element("footer", *inside)


def _document(title: str, body: Iterable[Html]) -> bytes:
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", title),
        element("link", rel="icon", href="data:,"),
        element("link", rel="stylesheet", href="/page.css"),
        element("script", src="/page.js", defer=True),
    )
    skip = element("a", "To the content", href="#main", class_="skip")
    inside = joined([skip, *body]).replace("<main>", '<main id="main">', 1)
    return f'<!doctype html>\n<html lang="en">{head}<body>{inside}</body></html>\n'.encode()
