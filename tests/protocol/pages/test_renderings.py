"""Sections are made once for all, and what is costly more seldom."""

import time

from fedmedclip.protocol.pages.elements import element
from fedmedclip.protocol.pages.page import Page, Renderings, Section


def page_of(render, revision):
    return Renderings(Page("t", "a", (Section("one", "One", render),), revision))


def test_a_section_is_made_once_as_long_as_nothing_has_changed():
    made, revision = [], [1]
    renderings = page_of(lambda may_change: made.append(0) or element("p", len(made)), lambda: revision[0])
    first = renderings.marks(False)
    assert renderings.marks(False) == first
    assert len(made) == 1
    revision[0] = 2
    while renderings.marks(False) == first:
        time.sleep(0.01)
    assert len(made) == 2


def test_what_is_costly_takes_a_hundredth_of_a_core_at_most():
    def work(may_change):
        made.append(0)
        until = time.thread_time() + 0.05
        while time.thread_time() < until:
            pass
        return element("p", len(made))

    made: list[int] = []
    renderings = page_of(work, time.monotonic)
    for _ in range(100):
        renderings.marks(False)
    assert len(made) == 1
