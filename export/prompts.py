"""Which phrases stand for each class: read from a `classes.toml`, or from the names of class folders."""

from pathlib import Path

from fedmedclip.protocol.bundle.bundle import ClassPrompts
from fedmedclip.protocol.bundle.prompts import DEFAULT_TEMPLATE, read_classes_toml, require_distinguishable
from fedmedclip.protocol.errors import InvalidInputError

CLASSES_FILE = "classes.toml"
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
            return read_classes_toml(path / CLASSES_FILE)
        return _from_folders(path)
    if not path.is_file():
        raise InvalidInputError(
            f"no file or folder {path}; --classes takes a classes.toml or a folder with one folder per class"
        )
    return read_classes_toml(path)


def _from_folders(folder: Path) -> ClassPrompts:
    folders = _sub_folders(folder)
    if not any(_holds_images(entry) for entry in folders):
        # Either a folder of sites, or of classes that are all still empty.
        folders = [inner for entry in folders for inner in _sub_folders(entry)] or folders
    class_names = sorted({entry.name for entry in folders})
    phrases = {name: [name.replace("_", " ")] for name in class_names}
    require_distinguishable(phrases, folder)
    return ClassPrompts(templates=[DEFAULT_TEMPLATE], classes=phrases)


def _sub_folders(folder: Path) -> list[Path]:
    return [entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith((".", "__"))]


def _holds_images(folder: Path) -> bool:
    return any(entry.suffix.lower() in IMAGE_SUFFIXES for entry in folder.iterdir())
