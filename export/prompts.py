"""Which phrases stand for each class: read from a `classes.toml`, or from the names of class folders."""

import tomllib
from pathlib import Path
from typing import Any

from protocol.bundle import ClassPrompts
from protocol.errors import InvalidInputError

CLASSES_FILE = "classes.toml"
DEFAULT_TEMPLATE = "a picture of a {}."
IMAGE_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})


def read_class_prompts(path: Path) -> ClassPrompts:
    """Read the class prompts of a `classes.toml`, or of a data folder.

    A folder's own `classes.toml` is used when it has one. Otherwise its sub-folders are the classes, or, in
    a folder of sites, the sub-folders of its sites; a class is then called by its folder's name with blanks
    for underscores, in the one template "a picture of a {}.". The order of the classes is that of the file,
    or the alphabetical one.

    Raises InvalidInputError when there is nothing at `path`, or not at least two classes that make sense.
    """
    if path.is_dir():
        if (path / CLASSES_FILE).is_file():
            return _from_toml(path / CLASSES_FILE)
        return _from_folders(path)
    if not path.is_file():
        raise InvalidInputError(
            f"no file or folder {path}; --classes takes a classes.toml or a folder with one folder per class"
        )
    return _from_toml(path)


def _from_toml(path: Path) -> ClassPrompts:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"{path} is not valid TOML: {error}") from error
    if unknown := content.keys() - {"templates", "classes"}:
        raise InvalidInputError(
            f"{path} has unknown keys {sorted(unknown)}; it holds `templates` and the table [classes]"
        )
    classes = content.get("classes")
    if not isinstance(classes, dict):
        raise InvalidInputError(
            f"{path} has no table [classes]; give one line per class folder, "
            'such as: no_tumor = ["no tumor", "no abnormality"]'
        )
    templates = _texts(content.get("templates", [DEFAULT_TEMPLATE]), f"{path}: `templates`")
    if incomplete := [template for template in templates if "{}" not in template]:
        raise InvalidInputError(
            f"{path}: template {incomplete[0]!r} has no {{}}, where the phrase of each class goes"
        )
    phrases = {name: _texts(value, f"{path}: class {name!r}") for name, value in classes.items()}
    _require_distinguishable(phrases, path)
    return ClassPrompts(templates=templates, classes=phrases)


def _from_folders(folder: Path) -> ClassPrompts:
    folders = _sub_folders(folder)
    if not any(_holds_images(entry) for entry in folders):
        # Either a folder of sites, or of classes that are all still empty.
        folders = [inner for entry in folders for inner in _sub_folders(entry)] or folders
    class_names = sorted({entry.name for entry in folders})
    phrases = {name: [name.replace("_", " ")] for name in class_names}
    _require_distinguishable(phrases, folder)
    return ClassPrompts(templates=[DEFAULT_TEMPLATE], classes=phrases)


def _sub_folders(folder: Path) -> list[Path]:
    return [entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith((".", "__"))]


def _holds_images(folder: Path) -> bool:
    return any(entry.suffix.lower() in IMAGE_SUFFIXES for entry in folder.iterdir())


def _texts(value: Any, what: str) -> list[str]:
    """Return `value` if it is a list of texts, none of them blank."""
    if not isinstance(value, list) or not value or not all(isinstance(v, str) and v.strip() for v in value):
        raise InvalidInputError(f"{what} is {value!r}; give a list of texts, none of them blank")
    return value


def _require_distinguishable(phrases: dict[str, list[str]], path: Path) -> None:
    """Raise InvalidInputError unless there are at least two classes, each with phrases of its own."""
    if len(phrases) < 2:
        raise InvalidInputError(
            f"{path} has {len(phrases)} classes, at least 2 are needed; "
            "give a classes.toml or a folder with one folder per class"
        )
    owners: dict[tuple[str, ...], str] = {}
    for name, texts in phrases.items():
        if name.startswith(".") or "/" in name or not name.strip():
            raise InvalidInputError(f"{path}: class {name!r} cannot be the name of a folder")
        other = owners.setdefault(tuple(sorted(texts)), name)
        if other != name:
            raise InvalidInputError(f"{path}: classes {other!r} and {name!r} have the same phrases {texts}")
