"""Sections are made once for all readers, and anew when something has changed."""

from concurrent.futures import ThreadPoolExecutor
from itertools import count

from fedmedclip.protocol.pages import page as pages
from fedmedclip.protocol.pages.elements import element
from fedmedclip.protocol.pages.page import Page, Renderings, Section


def page_of(render, revision):
    return Page("t", "a", (Section("s", "S", render),), revision)


def test_many_readers_at_once_cost_one_rendering_each_for_those_who_may_change_and_who_may_not():
    made = count()
    calls = []

    def render(may_change):
        calls.append(may_change)
        return element("p", next(made))

    page = page_of(render, lambda: 7)
    renderings = Renderings(page)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda n: renderings.of(page.sections[0], n % 2 == 0), range(200)))
    assert sorted(calls) == [False, True]
    assert len({rendered.mark for rendered in found}) == 2


def test_a_mark_changes_with_what_is_shown_alone(monkeypatch):
    monkeypatch.setattr(pages, "_SHARE", 0)
    now = {"revision": 1, "shown": "a"}
    page = page_of(lambda may_change: element("p", now["shown"]), lambda: now["revision"])
    renderings = Renderings(page)
    first = renderings.marks(False)
    now["revision"] = 2
    assert renderings.marks(False) == first
    now["shown"] = "b"
    assert renderings.marks(False) == first
    now["revision"] = 3
    assert renderings.marks(False) != first
