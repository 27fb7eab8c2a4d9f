"""Text files that people write, however their editor saved them.

A byte order mark at the start, as editors on Windows write it, is dropped. Nothing but a regular file of a
sensible size is ever read, so that a named pipe or a device does not hold up a start.
"""

from pathlib import Path

from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.paths import open_regular_file, path_fault

LARGEST_TEXT_BYTES = 1 << 20
# Those of UTF-32 begin like those of UTF-16, so they come first.
_OTHER_MARKS = {
    b"\xff\xfe\0\0": "UTF-32",
    b"\0\0\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}
_EXCERPT = 30


def read_text_file(path: Path, what: str, largest_bytes: int = LARGEST_TEXT_BYTES) -> str:
    """Return the text of a UTF-8 file, without a byte order mark; `what` is what messages call it.

    Raises InvalidInputError when there is no such file, it is no regular file, cannot be read, is larger than
    `largest_bytes`, or is not in UTF-8.
    """
    return decode_text(_bytes_of(path, what, largest_bytes), f"{what} {path}")


def decode_text(content: bytes, where: str) -> str:
    """Return the text of UTF-8 bytes without a byte order mark; or raise InvalidInputError after `where`."""
    if encoding := other_encoding(content):
        raise InvalidInputError(f"{where} is in {encoding}; save it as UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # The mark is not counted in the error's position.
        position = error.start + len(content) - len(error.object)
        line = content.count(b"\n", 0, position) + 1
        before = content[content.rfind(b"\n", 0, position) + 1 : position].decode("utf-8-sig", "replace")
        raise InvalidInputError(
            f"{where}, line {line}: byte {position} (0x{content[position]:02x}), after "
            f"{before[-_EXCERPT:]!r}, is not UTF-8; save it as UTF-8"
        ) from error


def other_encoding(content: bytes) -> str | None:
    """Return "UTF-16" or "UTF-32" where the first bytes show it, None otherwise."""
    for mark, encoding in _OTHER_MARKS.items():
        if content.startswith(mark):
            return encoding
    # Without a mark, plain letters still show it: every second byte is zero.
    start = content[:64]
    halves = start[::2], start[1::2]
    return "UTF-16" if len(start) >= 4 and any(not any(half) for half in halves) and any(start) else None


def _bytes_of(path: Path, what: str, largest_bytes: int) -> bytes:
    if fault := path_fault(path, "file"):
        raise InvalidInputError(f"{what} {path}: {fault}")
    try:
        # A pipe may have taken the file's place since.
        with open_regular_file(path) as file:
            content = file.read(largest_bytes + 1)
    except OSError as error:
        raise InvalidInputError(f"{what} {path} cannot be read ({error.strerror})") from error
    if len(content) > largest_bytes:
        raise InvalidInputError(
            f"{what} {path} has more than {largest_bytes:,} bytes; is it the file that is meant?"
        )
    return content
