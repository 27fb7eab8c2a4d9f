"""Finding images: a labelled data folder or CSV for training, any paths for prediction."""

import csv
import glob
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from edge_client.images import is_image_name
from protocol.errors import InvalidInputError

# What file managers, archivers and network disks leave among the class folders.
_SYSTEM_FOLDERS = frozenset({"__MACOSX", "@eaDir", "System Volume Information"})


@dataclass(frozen=True)
class LabelledImage:
    """One image of a data set; `name` is its path relative to the data set, with forward slashes."""

    path: Path
    name: str
    label: str


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


def load_dataset(path: Path, class_names: Sequence[str], *, minimum_per_class: int = 2) -> Dataset:
    """List the images of a folder with one sub-folder per class, or of a CSV file with path and label.

    Class folders are searched with all their sub-folders. In a CSV, paths are relative to its folder.
    No image is opened here. Raises InvalidInputError when the path is missing, the CSV is malformed, a
    class is not one of `class_names`, or a class has fewer than `minimum_per_class` images.
    """
    if path.is_dir():
        images, ignored_files = _images_in_class_folders(path, class_names)
    elif path.is_file():
        images, ignored_files = _images_in_csv(path), 0
    else:
        raise InvalidInputError(f"data {path} does not exist; give a folder of class folders or a CSV file")
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


def list_images(paths_or_globs: Sequence[str | Path]) -> list[Path]:
    """Return the images that files, folders (with their sub-folders) and glob patterns name, each once.

    A file that is named itself is taken whatever its ending; in folders and by patterns only image files
    are. Raises InvalidInputError for the first item that gives no image.
    """
    found: dict[Path, None] = {}
    for item in paths_or_globs:
        path = Path(item)
        if path.is_dir():
            images = [file for file in _files_below(path) if is_image_name(file)]
        elif os.path.lexists(path):
            images = [path]
        elif glob.has_magic(str(item)):
            images = list(_images_matching(str(item)))
        else:
            raise InvalidInputError(f"{item} does not exist")
        if not images:
            raise InvalidInputError(f"no image file in or matching {item}")
        found.update(dict.fromkeys(images))
    return list(found)


def _images_matching(pattern: str) -> Iterator[Path]:
    for match in sorted(glob.glob(pattern, recursive=True)):
        path = Path(match)
        files = _files_below(path) if path.is_dir() else [path]
        yield from (file for file in files if is_image_name(file))


def _images_in_class_folders(root: Path, class_names: Sequence[str]) -> tuple[list[LabelledImage], int]:
    """Return the images and how many other files there are."""
    folders, ignored_files = [], 0
    for entry in sorted(_entries(root)):
        if not entry.is_dir():
            ignored_files += 1
        elif not _is_system_folder(entry.name):
            folders.append(entry)
    if not folders:
        raise InvalidInputError(
            f"data {root} has no class folders; expected one sub-folder for each of: {', '.join(class_names)}"
        )
    _refuse_unknown_classes(root, [folder.name for folder in folders], class_names)
    images: list[LabelledImage] = []
    for folder in folders:
        files = list(_files_below(folder))
        paths = [file for file in files if is_image_name(file)]
        if not paths:
            raise InvalidInputError(f"class folder {folder} has no image; add images or remove the folder")
        images += [LabelledImage(path, path.relative_to(root).as_posix(), folder.name) for path in paths]
        ignored_files += len(files) - len(paths)
    return images, ignored_files


def _images_in_csv(path: Path) -> list[LabelledImage]:
    """Read rows of path,label; further columns are allowed."""
    images: list[LabelledImage] = []
    line_of: dict[str, int] = {}
    try:
        # The encoding accepts the byte order mark that spreadsheets write.
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            header = reader.fieldnames or []
            if not {"path", "label"} <= set(header):
                raise InvalidInputError(
                    f"{path}, line 1: the header must name the columns path,label (comma separated), "
                    f"found {_shortened(','.join(header))!r}"
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
                images.append(LabelledImage(path.parent / name, name, label))
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"data {path} is not a CSV file in UTF-8 ({error.reason})") from error
    except csv.Error as error:
        line = reader.reader.line_num
        raise InvalidInputError(f"{path}, line {line}: not valid CSV ({error})") from error
    if not images:
        raise InvalidInputError(f"data {path} lists no images below its header")
    return images


def _refuse_unknown_classes(source: Path, found: Iterable[str], class_names: Sequence[str]) -> None:
    if unknown := sorted(set(found) - set(class_names)):
        raise InvalidInputError(
            f"data {source} has {', '.join(map(_shortened, unknown))}, not a class of the bundle, which has "
            f"{', '.join(class_names)}; rename or remove it, or export a bundle with this class"
        )


def _files_below(folder: Path) -> Iterator[Path]:
    """Yield all files in a folder and its sub-folders, sorted; links are followed, each folder once."""
    visited: set[tuple[int, int]] = set()
    for current, folders, files in os.walk(folder, followlinks=True, onerror=_refuse_folder):
        status = os.stat(current)
        if (status.st_dev, status.st_ino) in visited:
            folders.clear()
            continue
        visited.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not _is_system_folder(name))
        yield from (Path(current, name) for name in sorted(files))


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError as error:
        _refuse_folder(error)


def _refuse_folder(error: OSError) -> NoReturn:
    raise InvalidInputError(f"folder {error.filename} cannot be read ({error.strerror})") from error


def _is_system_folder(name: str) -> bool:
    return name.startswith(".") or name in _SYSTEM_FOLDERS


def _shortened(text: str) -> str:
    return text if len(text) <= 80 else text[:77] + "..."
