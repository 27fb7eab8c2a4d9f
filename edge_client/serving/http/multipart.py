"""`multipart/form-data` (RFC 7578), piece by piece, so that no file in it has to fit into memory."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

_LONGEST_HEAD = 8192
_LONGEST_BOUNDARY = 70
_BOUNDARY = re.compile(rb"[0-9A-Za-z'()+_,\-./:=? ]{0,69}[0-9A-Za-z'()+_,\-./:=?]")
# A quoted text may hold escaped quotes, an unquoted one no blanks (RFC 9110, 5.6).
_PARAMETER = re.compile(r';\s*([!#$%&\'*+.^_`|~0-9A-Za-z-]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^\s;"]*)\s*')


class MultipartError(ValueError):
    """A body that is no `multipart/form-data` with files alone; its text is one line."""


@dataclass(frozen=True)
class FileBegins:
    """The next file begins."""


@dataclass(frozen=True)
class FileEnds:
    """The file that was begun is whole."""


Event = FileBegins | FileEnds | bytes
"""What a piece of a body brings: a file's begin, bytes of it, its end."""


def media_type(header: str) -> tuple[str, dict[str, str]]:
    """Return a `Content-Type` as its type in small letters and its parameters; ("", {}) for what is none."""
    kind, semicolon, rest = header.partition(";")
    kind = kind.strip().lower()
    if not re.fullmatch(r"[\w.+!#$&^-]+/[\w.+!#$&^-]+", kind, re.ASCII):
        return "", {}
    found: dict[str, str] = {}
    position, text = 0, semicolon + rest
    while match := _PARAMETER.match(text, position):
        value = match[2]
        if value.startswith('"'):
            value = re.sub(r"\\(.)", r"\1", value[1:-1])
        found.setdefault(match[1].lower(), value)
        position = match.end()
    return kind, found


def boundary_of(parameters: dict[str, str]) -> bytes:
    """Return the boundary that a `Content-Type` names. Raises MultipartError for none."""
    boundary = parameters.get("boundary", "").encode("utf-8", "replace")
    if not _BOUNDARY.fullmatch(boundary):
        raise MultipartError(f"the Content-Type names no boundary of 1 to {_LONGEST_BOUNDARY} characters")
    return boundary


class MultipartReader:
    """Reads one body. Every part of it is a file; where a part is none, it is refused.

    What a part's header says of a file, its name above all, is not kept: it may name a patient.
    """

    def __init__(self, boundary: bytes) -> None:
        # The first boundary need not follow a line end, so one is put before all.
        self._held = bytearray(b"\r\n")
        self._delimiter = b"\r\n--" + boundary
        self._state = self._before_first
        self._in_file = False
        self._not_of_file = 0
        self.ended = False

    def feed(self, data: bytes) -> Iterator[Event]:
        """Yield what comes of the body's next bytes. Raises MultipartError."""
        if self.ended:
            return
        self._held += data
        while not self.ended:
            events = self._state()
            if events is None:
                break
            yield from events
        # Of a file, what cannot be the beginning of a delimiter goes on at once.
        if self._in_file and (ready := len(self._held) - len(self._delimiter) + 1) > 0:
            yield self._taken(ready)

    def finish(self) -> None:
        """Raises MultipartError where the body ended before its last boundary."""
        if not self.ended:
            raise MultipartError("the body ends before its last boundary, so it is not whole")

    def _before_first(self) -> list[Event] | None:
        at = self._held.find(self._delimiter)
        if at < 0:
            del self._held[: max(0, len(self._held) - len(self._delimiter) + 1)]
            return None
        del self._held[: at + len(self._delimiter)]
        self._state = self._after_delimiter
        return []

    def _after_delimiter(self) -> list[Event] | None:
        if self._held.startswith(b"--"):
            self.ended = True
            self._held.clear()
            return []
        end = self._held.find(b"\r\n")
        line = self._held[: end if end >= 0 else None].rstrip(b"\r")
        if line.strip(b" \t") and bytes(line) != b"-":
            raise MultipartError("a boundary is followed by something else than the end of its line")
        if end < 0:
            if len(self._held) > _LONGEST_HEAD:
                raise MultipartError("a boundary's line does not end")
            return None
        # The line's end stays: a part without headers begins with an empty line at once.
        del self._held[:end]
        self._state = self._head
        return []

    def _head(self) -> list[Event] | None:
        end = self._held.find(b"\r\n\r\n")
        if end < 0 or end > _LONGEST_HEAD:
            if len(self._held) > _LONGEST_HEAD:
                raise MultipartError(f"a part's header is longer than {_LONGEST_HEAD} bytes")
            return None
        _require_file(bytes(self._held[:end]))
        # The empty line's own end stays, for a file without bytes may be left out up to the delimiter, but it
        # is not of the file.
        del self._held[: end + 2]
        self._not_of_file = 2
        self._in_file = True
        self._state = self._content
        return [FileBegins()]

    def _content(self) -> list[Event] | None:
        at = self._held.find(self._delimiter)
        if at < 0:
            return None
        data = self._taken(at)
        del self._held[: len(self._delimiter)]
        self._in_file = False
        self._state = self._after_delimiter
        return [data, FileEnds()]

    def _taken(self, count: int) -> bytes:
        """Return what the next bytes are of the file."""
        data = bytes(self._held[self._not_of_file : count])
        self._not_of_file = max(0, self._not_of_file - count)
        del self._held[:count]
        return data


def _require_file(head: bytes) -> None:
    """Raise MultipartError unless a part's header is that of a file, as it is."""
    fields: dict[str, str] = {}
    for line in head.decode("utf-8", "replace").split("\r\n"):
        name, colon, value = line.partition(":")
        if line and not colon:
            raise MultipartError("a part's header holds a line without a colon")
        fields[name.strip().lower()] = value.strip()
    disposition, semicolon, rest = fields.get("content-disposition", "").partition(";")
    names = {match[1].lower() for match in _PARAMETER.finditer(semicolon + rest)}
    if disposition.strip().lower() != "form-data" or not names & {"filename", "filename*"}:
        raise MultipartError(
            "a part is no file, for its Content-Disposition has no filename; what else is asked goes "
            "into the query, as ?explain=1"
        )
    encoding = fields.get("content-transfer-encoding", "binary").lower()
    if encoding not in ("binary", "8bit", "7bit"):
        raise MultipartError("a part has a Content-Transfer-Encoding; send the file's bytes as they are")
