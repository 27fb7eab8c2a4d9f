"""What a page is: sections that are made anew when something has changed, and what may be done on it."""

import hashlib
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from fedmedclip.protocol.pages.elements import Html

Fields = Mapping[str, str]
Action = Callable[[Fields, str], str]
"""Does what a form asks; it is given its fields, and who asks."""

# A section is made anew after so many times what making it took, at most: one part in a hundred of a core.
_SHARE = 100


@dataclass(frozen=True)
class Section:
    """A part of a page: its name in addresses, its heading, and what makes its inside, called in any thread.

    `render` is given whether this reader may change something; buttons are only for those.
    """

    name: str
    title: str
    render: Callable[[bool], Html]


@dataclass(frozen=True)
class Document:
    """What programs read at a path: the type, and what makes the bytes, called in any thread."""

    media_type: str
    make: Callable[[], bytes]


@dataclass(frozen=True)
class Page:
    """A page of one party.

    `revision` tells, cheaply, whether anything on it may have changed. `actions` do what is asked
    and return a sentence; FedMedClipError says why not. `documents` are by path.
    """

    title: str
    about: str
    sections: tuple[Section, ...]
    revision: Callable[[], object]
    actions: Mapping[str, Action] = field(default_factory=dict)
    documents: Mapping[str, Document] = field(default_factory=dict)


@dataclass(frozen=True)
class Rendered:
    """The inside of a section as it was made, and a mark that changes with it."""

    html: Html
    mark: str


@dataclass(frozen=True)
class _Made:
    revision: object
    rendered: Rendered
    next_at: float


class Renderings:
    """The sections of a page, made once for all readers as long as nothing has changed.

    What is costly to make is made more seldom, and may be some seconds old.
    """

    def __init__(self, page: Page) -> None:
        self._page = page
        self._lock = threading.Lock()
        self._made: dict[tuple[str, bool], _Made] = {}

    def of(self, section: Section, may_change: bool) -> Rendered:
        """Return a section as it is now."""
        revision, key = self._page.revision(), (section.name, may_change)
        with self._lock:
            known = self._made.get(key)
            if known is not None and (known.revision == revision or time.monotonic() < known.next_at):
                return known.rendered
            began = time.thread_time()
            html = section.render(may_change)
            rendered = Rendered(html, hashlib.sha256(html.encode()).hexdigest()[:16])
            spent = time.thread_time() - began
            self._made[key] = _Made(revision, rendered, time.monotonic() + _SHARE * spent)
            return rendered

    def marks(self, may_change: bool) -> dict[str, str]:
        """Return the mark of each section as it is now."""
        return {section.name: self.of(section, may_change).mark for section in self._page.sections}
