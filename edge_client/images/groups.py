"""Which images belong together: a file that names the group of each."""

import csv
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from fedmedclip.edge_client.images.dataset import LabelledImage
from fedmedclip.edge_client.images.readers.address import parse_address
from fedmedclip.protocol.csv_cells import path_of, text_of
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.paths import open_regular_file
from fedmedclip.protocol.text_files import decode_text

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


def group_of(image: Path, groups: Mapping[str, str], group_file: Path) -> str:
    """Return the group of an image, by its address or by its file; "" when the groups name neither."""
    folder = group_file.parent
    return groups.get(_name(image, folder)) or groups.get(_name(parse_address(image).file, folder), "")


def files_without_image(
    groups: Mapping[str, str], group_file: Path, data: Path, images: Iterable[LabelledImage]
) -> int:
    """Return how many files in the folder `data` the groups name that are none of its images.

    A groups file may be of several folders, such as a federation's; what it says of others does not count.
    """
    folder = group_file.parent
    within = _name(data, folder)
    known = {_name(path, folder) for image in images for path in (image.path, parse_address(image.path).file)}
    ours = [name for name in groups if within == "." or name.startswith(f"{within}/")]
    return sum(name not in known for name in ours)


def _name(path: Path, folder: Path) -> str:
    """Return a path as a groups file in `folder` has it, also where a link leads to one of the two."""
    name = Path(os.path.relpath(path, folder)).as_posix()
    if name.startswith(".."):
        name = Path(os.path.relpath(path.parent.resolve() / path.name, folder.resolve())).as_posix()
    return name
