"""What a page is: sections that are made anew when something has changed, and what may be done on it."""

import hashlib
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from fedmedclip.protocol.pages.elements import Html

Fields = Mapping[str, str]


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

    `revision` tells, cheaply, whether anything on it may have changed. `actions` do what is asked with the
    fields of a form and return a sentence; FedMedClipError says why not. `documents` are by path.
    """

    title: str
    about: str
    sections: tuple[Section, ...]
    revision: Callable[[], object]
    actions: Mapping[str, Callable[[Fields], str]] = field(default_factory=dict)
    documents: Mapping[str, Document] = field(default_factory=dict)


@dataclass(frozen=True)
class Rendered:
    """The inside of a section as it was made, and a mark that changes with it."""

    html: Html
    mark: str


class Renderings:
    """The sections of a page, made once for all readers as long as nothing has changed."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self._lock = threading.Lock()
        self._made: dict[tuple[str, bool], tuple[object, Rendered]] = {}

    def of(self, section: Section, may_change: bool) -> Rendered:
        """Return a section as it is now."""
        revision, key = self._page.revision(), (section.name, may_change)
        with self._lock:
            known = self._made.get(key)
            if known is not None and known[0] == revision:
                return known[1]
            html = section.render(may_change)
            made = Rendered(html, hashlib.sha256(html.encode()).hexdigest()[:16])
            self._made[key] = (revision, made)
            return made

    def marks(self, may_change: bool) -> dict[str, str]:
        """Return the mark of each section as it is now."""
        return {section.name: self.of(section, may_change).mark for section in self._page.sections}
