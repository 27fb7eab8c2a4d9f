"""Finding images: a labelled folder, CSV or archive for training, any paths for prediction."""

import csv
import glob
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

from fedmedclip.edge_client.images.opening import frames_of, is_image_file, is_image_name
from fedmedclip.edge_client.images.readers.address import archive_address, parse_address
from fedmedclip.edge_client.images.readers.archive import PARTS as ARCHIVE_PARTS
from fedmedclip.edge_client.images.readers.archive import archive_labels
from fedmedclip.edge_client.images.readers.refusal import RefusedFileError
from fedmedclip.edge_client.images.readers.settings import DEFAULT_READING, ReaderSettings
from fedmedclip.edge_client.images.split import Part
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.near_names import near_name, quoted
from fedmedclip.protocol.paths import open_regular_file
from fedmedclip.protocol.text_files import decode_text, other_encoding

# What file managers, archivers and network disks leave among the class folders.
_SYSTEM_FOLDERS = frozenset({"__MACOSX", "@eaDir", "System Volume Information"})
_ARCHIVE_SUFFIX = ".npz"
_GROUP_COLUMN = "group"
GROUP_FILE = "groups.csv"
_PART_OF: dict[str, Part] = {"train": "train", "val": "validation", "test": "test"}


@dataclass(frozen=True)
class LabelledImage:
    """One image of a data set; `name` is its path relative to the data set, with forward slashes.

    `path` may be an address (`readers.address`). `part` is given where the data set itself is split, `group`
    where a column of it says whose image it is.
    """

    path: Path
    name: str
    label: str
    part: Part | None = None
    group: str = ""


@dataclass(frozen=True)
class Dataset:
    """The labelled images of a site, sorted by name.

    `ignored_files` counts the files beside them that are not images by name, `absent_classes` the
    bundle's classes that have no image here.
    """

    source: Path
    images: tuple[LabelledImage, ...]
    ignored_files: int
    absent_classes: tuple[str, ...]


def load_dataset(
    path: Path,
    class_names: Sequence[str],
    *,
    minimum_per_class: int = 2,
    settings: ReaderSettings = DEFAULT_READING,
    group_column: str | None = None,
) -> Dataset:
    """List the images of a folder with one sub-folder per class, of a CSV file, or of a MedMNIST archive.

    Class folders are searched with all their sub-folders. In a CSV with the columns path and label, paths are
    relative to its folder; the column `group_column`, or without one a column group if there is, names what
    must stay together. The labels of an archive (`.npz`) are numbers of `class_names`, from 0, and its
    split is kept. Files are opened only where nothing else tells what they are, or to count frames with
    `frames = "all"`.

    Raises InvalidInputError when the path is missing, the CSV or archive is malformed, a class is not one of
    `class_names`, or a class has fewer than `minimum_per_class` images.
    """
    ignored_files = 0
    if path.is_dir():
        images, ignored_files = _images_in_class_folders(path, class_names)
    elif path.is_file() and path.suffix.lower() == _ARCHIVE_SUFFIX:
        images = _images_in_archive(path, class_names)
    elif path.is_file():
        images = _images_in_csv(path, group_column)
    else:
        raise _no_data(path)
    if group_column is not None and (path.is_dir() or path.suffix.lower() == _ARCHIVE_SUFFIX):
        raise InvalidInputError(
            f"data {path} is no CSV file and has no column {group_column!r}; leave group_column out, or name "
            "the groups in a groups file"
        )
    images = [frame for image in images for frame in _frames(image, settings)]
    counts = Counter(image.label for image in images)
    _refuse_unknown_classes(path, counts.keys(), class_names)
    for label, count in sorted(counts.items()):
        if count < minimum_per_class:
            raise InvalidInputError(
                f"data {path}: class {label!r} has only {count} image; "
                f"add images (at least {minimum_per_class}) or remove the class"
            )
    absent = tuple(name for name in class_names if name not in counts)
    return Dataset(path, tuple(sorted(images, key=lambda image: image.name)), ignored_files, absent)


def class_names_of(path: Path) -> tuple[str, ...]:
    """Return the classes that a data set names itself: its folders, its CSV's labels, an archive's numbers.

    Raises InvalidInputError when there is no such data, as `load_dataset` does.
    """
    if path.is_dir():
        entries = sorted(_entries(path))
        return tuple(entry.name for entry in entries if entry.is_dir() and not _is_system_folder(entry.name))
    if path.is_file() and path.suffix.lower() == _ARCHIVE_SUFFIX:
        largest = max((label for _, _, label in _archive_members(path)), default=-1)
        return tuple(str(label) for label in range(largest + 1))
    if path.is_file():
        return tuple(sorted({image.label for image in _images_in_csv(path, None)}))
    raise _no_data(path)


def list_images(
    paths_or_globs: Sequence[str | Path], settings: ReaderSettings = DEFAULT_READING
) -> list[Path]:
    """Return the images that files, addresses, folders (with their sub-folders) and globs name, each once.

    A file that is named itself is taken whatever its ending; in folders and by patterns only image files
    are. Of an archive (`.npz`) all images are. With `frames = "all"` each frame is an image.

    Raises InvalidInputError for the first item that gives no image.
    """
    found: dict[Path, None] = {}
    for item in paths_or_globs:
        path = Path(item)
        if path.is_dir():
            images = list(_images_below(path))
        elif os.path.lexists(path) and path.suffix.lower() == _ARCHIVE_SUFFIX:
            images = [archive_address(path, part, index) for part, index, _ in _archive_members(path)]
        elif os.path.lexists(path) or os.path.lexists(parse_address(path).file):
            images = [path]
        elif glob.has_magic(str(item)):
            images = list(_images_matching(str(item)))
        else:
            raise InvalidInputError(f"{item} does not exist")
        if not images:
            raise InvalidInputError(f"no image file in or matching {item}")
        found.update(dict.fromkeys(frame for image in images for frame in frames_of(image, settings)))
    return list(found)


def _images_matching(pattern: str) -> Iterator[Path]:
    for match in sorted(glob.glob(pattern, recursive=True)):
        path = Path(match)
        if path.is_dir():
            yield from _images_below(path)
        elif is_image_file(path):
            yield path


def _images_below(folder: Path) -> Iterator[Path]:
    return (path for path in _entries_below(folder) if path.is_dir() or is_image_file(path))


def _frames(image: LabelledImage, settings: ReaderSettings) -> list[LabelledImage]:
    addresses = frames_of(image.path, settings)
    if len(addresses) == 1:
        return [image]
    folder, _, _ = image.name.rpartition(image.path.name)
    return [replace(image, path=address, name=folder + address.name) for address in addresses]


def _images_in_archive(path: Path, class_names: Sequence[str]) -> list[LabelledImage]:
    members = list(_archive_members(path))
    if unknown := {label for _, _, label in members if not 0 <= label < len(class_names)}:
        raise InvalidInputError(
            f"data {path} has the label {min(unknown)}, and the bundle has {len(class_names)} classes: "
            f"{', '.join(class_names)}; export a bundle with the archive's classes, in its order"
        )
    images = []
    for part, index, label in members:
        address = archive_address(path, part, index)
        images.append(LabelledImage(address, address.name, class_names[label], _PART_OF[part]))
    return images


def _archive_members(path: Path) -> Iterator[tuple[str, int, int]]:
    """Yield (part, index, label) of each image of an archive."""
    try:
        labels = archive_labels(path)
    except RefusedFileError as refusal:
        raise InvalidInputError(
            f"data {path} cannot be used: {refusal.reason}; it needs uint8 arrays such as train_images "
            f"(N, height, width, 3) and train_labels (N, 1), for some of {', '.join(ARCHIVE_PARTS)}"
        ) from refusal
    for part, values in labels.items():
        yield from ((part, index, int(label)) for index, label in enumerate(values))


def _images_in_class_folders(root: Path, class_names: Sequence[str]) -> tuple[list[LabelledImage], int]:
    """Return the images and how many other files there are."""
    folders, ignored_files = [], 0
    for entry in sorted(_entries(root)):
        if not entry.is_dir():
            ignored_files += entry.name != GROUP_FILE
        elif not _is_system_folder(entry.name):
            folders.append(entry)
    if not folders:
        raise InvalidInputError(
            f"data {root} has no class folders; expected one sub-folder for each of: {', '.join(class_names)}"
        )
    _refuse_unknown_classes(root, [folder.name for folder in folders], class_names)
    images: list[LabelledImage] = []
    for folder in folders:
        entries = list(_entries_below(folder))
        paths = [path for path in entries if path.is_dir() or is_image_file(path)]
        if not paths:
            raise InvalidInputError(f"class folder {folder} has no image; add images or remove the folder")
        images += [LabelledImage(path, path.relative_to(root).as_posix(), folder.name) for path in paths]
        ignored_files += len(entries) - len(paths)
    return images, ignored_files


def _images_in_csv(path: Path, group_column: str | None) -> list[LabelledImage]:
    """Read rows of path,label and perhaps a group; further columns are allowed."""
    column = group_column or _GROUP_COLUMN
    images: list[LabelledImage] = []
    line_of: dict[str, int] = {}
    with open_regular_file(path) as content:
        start = content.read(64)
    if other_encoding(start):
        decode_text(start, f"data {path}")
    try:
        # The encoding accepts the byte order mark that spreadsheets write.
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            header = reader.fieldnames = [name.strip() for name in reader.fieldnames or []]
            if not {"path", "label"} <= set(header):
                raise InvalidInputError(
                    f"{path}, line 1: the header must name the columns path,label (comma separated), "
                    f"found {_shortened(','.join(header))!r}"
                )
            if group_column is not None and group_column not in header:
                raise InvalidInputError(
                    f"{path}, line 1: there is no column {group_column!r} for the groups, found "
                    f"{_shortened(','.join(header))!r}"
                )
            for row in reader:
                where = f"{path}, line {reader.line_num}"
                name, label = row["path"], row["label"]
                if None in row or not name or not label or "\0" in name:
                    raise InvalidInputError(f"{where}: expected {len(header)} values with a path and a label")
                if name in line_of:
                    raise InvalidInputError(
                        f"{where}: {name!r} is already in line {line_of[name]}; list each image once"
                    )
                line_of[name] = reader.line_num
                group = (row.get(column) or "").strip()
                images.append(LabelledImage(path.parent / name, name, label, group=group))
    except UnicodeDecodeError as error:
        with open_regular_file(path) as content:
            decode_text(content.read(), f"data {path}")
        raise InvalidInputError(f"data {path} is not a CSV file in UTF-8 ({error.reason})") from error
    except csv.Error as error:
        line = reader.reader.line_num
        raise InvalidInputError(f"{path}, line {line}: not valid CSV ({error})") from error
    if not images:
        raise InvalidInputError(f"data {path} lists no images below its header")
    return images


def _refuse_unknown_classes(source: Path, found: Iterable[str], class_names: Sequence[str]) -> None:
    if unknown := sorted(set(found) - set(class_names)):
        named = ", ".join(_as_meant(name, class_names) for name in unknown)
        raise InvalidInputError(
            f"data {source} has {named}, not a class of the bundle, which has "
            f"{', '.join(class_names)}; rename or remove it, or export a bundle with this class"
        )


def _as_meant(name: str, class_names: Sequence[str]) -> str:
    """Return an unknown class in quotes, with the class that was probably meant; blanks and coding show."""
    near = near_name(name, class_names)
    if near is None:
        plain = name.isprintable() and name == name.strip()
        return _shortened(name) if plain else ascii(_shortened(name))
    return f"{quoted(_shortened(name), near)} (did you mean {quoted(near, name)}?)"


def _entries_below(folder: Path) -> Iterator[Path]:
    """Yield all files in a folder and its sub-folders, sorted; links are followed, each folder once.

    A sub-folder that is named like an image is yielded too, so that it is reported and not overlooked.
    """
    visited: set[tuple[int, int]] = set()
    for current, folders, files in os.walk(folder, followlinks=True, onerror=_refuse_folder):
        status = os.stat(current)
        if (status.st_dev, status.st_ino) in visited:
            folders.clear()
            continue
        visited.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not _is_system_folder(name))
        named_like_images = [name for name in folders if is_image_name(Path(name))]
        yield from (Path(current, name) for name in sorted([*files, *named_like_images]))


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError as error:
        _refuse_folder(error)


def _refuse_folder(error: OSError) -> NoReturn:
    raise InvalidInputError(f"folder {error.filename} cannot be read ({error.strerror})") from error


def _is_system_folder(name: str) -> bool:
    return name.startswith(".") or name in _SYSTEM_FOLDERS


def _no_data(path: Path) -> InvalidInputError:
    return InvalidInputError(
        f"data {path} does not exist; give a folder of class folders, a CSV file or an .npz archive"
    )


def _shortened(text: str) -> str:
    return text if len(text) <= 80 else text[:77] + "..."
