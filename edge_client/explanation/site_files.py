"""Where a site keeps its images, its split and its embeddings: what `site.toml` says of that, and no more."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from fedmedclip.edge_client.images.readers.settings import DEFAULT_READING, ReaderSettings
from fedmedclip.edge_client.images.split import SPLIT_FILE
from fedmedclip.protocol.configuration import beside, convert, read_toml
from fedmedclip.protocol.configuration.annotations import FileOrFolder, NewFile, NewFolder


class _Site(msgspec.Struct, frozen=True):
    data: FileOrFolder
    state: NewFolder = "site-state"
    feature_store: NewFile | None = None


class _Split(msgspec.Struct, frozen=True):
    group_column: str | None = None


class _Configuration(msgspec.Struct, frozen=True):
    """The tables of `site.toml` that tell where the site's files are; the rest of it is the site's."""

    site: _Site
    split: _Split = _Split()
    images: ReaderSettings = DEFAULT_READING


@dataclass(frozen=True)
class SiteFiles:
    """The files of a site, and how it reads its images. `configuration` is the `site.toml` that says so."""

    configuration: Path
    data: Path
    split: Path
    feature_store: Path
    images: ReaderSettings
    group_column: str | None = None


def site_files(configuration: Path) -> SiteFiles:
    """Read a site's `site.toml`. Raises InvalidInputError with one line when it cannot be used."""
    found = convert(
        _ours(read_toml(configuration, "configuration")), _Configuration, f"configuration {configuration}"
    )
    state = beside(configuration, found.site.state)
    store = found.site.feature_store
    return SiteFiles(
        configuration,
        beside(configuration, found.site.data),
        state / SPLIT_FILE,
        state / "features.db" if store is None else beside(configuration, store),
        found.images,
        found.split.group_column,
    )


def _ours(written: dict[str, Any]) -> dict[str, Any]:
    """Return the settings that are read here; the site itself checks all of them."""
    tables = {"site": _Site, "split": _Split, "images": ReaderSettings}
    return {
        name: {key: value for key, value in table.items() if key in tables[name].__struct_fields__}
        if isinstance(table, dict)
        else table
        for name, table in written.items()
        if name in tables
    }
