"""Which classes a report is about: a bundle's, a `classes.toml`'s, or those that the data itself has."""

from pathlib import Path

from fedmedclip.edge_client.images.dataset import class_names_of
from fedmedclip.edge_client.images.opening import is_image_file
from fedmedclip.protocol.bundle.bundle import open_bundle
from fedmedclip.protocol.bundle.prompts import read_classes_toml
from fedmedclip.protocol.errors import InvalidInputError

_BESIDE_SITES = frozenset({"global_test", "server_reference"})


def chosen_classes(data: Path, bundle: Path | None, classes: Path | None) -> tuple[str, ...]:
    """Return the names of the classes, in their order.

    Raises InvalidInputError when both files are given, for data without classes, and, where only the data
    says which there are, for a folder of sites; BundleError for a bundle that cannot be opened.
    """
    if bundle is not None and classes is not None:
        raise InvalidInputError(
            "give --bundle or --classes, not both: each of them says which classes there are"
        )
    if bundle is not None:
        return tuple(open_bundle(bundle, with_text=False, with_encoder=False).manifest.class_names)
    if classes is not None:
        return tuple(read_classes_toml(classes).classes)
    names = class_names_of(data)
    if data.is_dir() and (sites := _sites(data, names)):
        raise InvalidInputError(
            f"data {data} looks like a folder of sites, {', '.join(sites)}; give one site's folder: "
            f"fedmedclip data {data / sites[0]}, or say with --classes that these are classes"
        )
    return names


def _sites(data: Path, names: tuple[str, ...]) -> list[str]:
    """Return the sub-folders when they hold the same folders and no images, as the sites of a federation do.

    The folders of patients in classes have other names in each.
    """
    inner = []
    for name in names:
        entries = sorted((data / name).iterdir())
        folders = [entry.name for entry in entries if entry.is_dir() and not entry.name.startswith(".")]
        if not folders or any(entry.is_file() and is_image_file(entry) for entry in entries):
            return []
        inner.append(folders)
    if len(names) < 2 or not (_BESIDE_SITES & set(names) or all(folders == inner[0] for folders in inner)):
        return []
    return [name for name in names if name not in _BESIDE_SITES] or [*names]
