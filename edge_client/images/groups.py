"""Which images belong together: a file that names the group of each."""

import csv
from pathlib import Path

from fedmedclip.protocol.csv_cells import path_of, text_of
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.paths import open_regular_file
from fedmedclip.protocol.text_files import decode_text

GROUP_FILE = "groups.csv"
_COLUMNS = ("file", "group")


def read_groups(path: Path) -> dict[str, str]:
    """Return the group of each file of a CSV with the columns file and group.

    Files are paths relative to its folder, with forward slashes; an empty group is none. Raises
    InvalidInputError with the line that cannot be used.
    """
    try:
        with open_regular_file(path) as file:
            text = decode_text(file.read(), f"groups {path}")
    except OSError as error:
        raise InvalidInputError(f"groups {path} cannot be read ({error.strerror})") from error
    reader = csv.DictReader(text.splitlines())
    if missing := [name for name in _COLUMNS if name not in (reader.fieldnames or ())]:
        raise InvalidInputError(f"groups {path} lacks the column {missing[0]!r}; it needs file,group")
    groups: dict[str, str] = {}
    for row in reader:
        file_name, group = row["file"], row["group"]
        if not file_name or group is None:
            raise InvalidInputError(f"groups {path}, line {reader.line_num}: a file or its group is missing")
        name = path_of(file_name).replace("\\", "/").removeprefix("./")
        if groups.setdefault(name, text_of(group)) != text_of(group):
            raise InvalidInputError(f"groups {path}, line {reader.line_num}: {name!r} has two groups")
    return groups
