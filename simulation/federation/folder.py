"""A folder of sites: what `fedmedclip demo --data` takes.

folder/SITE/CLASS/image.jpg     one folder per site, each a folder of classes
folder/global_test/...          optional: labelled images of no site
folder/server_reference/...     optional: held by the aggregator
folder/classes.toml             optional: prompts of each class
folder/groups.csv               optional: columns file (SITE/CLASS/image.jpg) and group
"""

from dataclasses import dataclass
from pathlib import Path

from fedmedclip.edge_client.images.dataset import GROUP_FILE
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.topics import check_name

GLOBAL_TEST = "global_test"
SERVER_REFERENCE = "server_reference"


@dataclass(frozen=True)
class FederationFolder:
    """The sites' folders by name, and the global test folder and groups file if there are any."""

    path: Path
    sites: dict[str, Path]
    global_test: Path | None
    group_file: Path | None = None


def open_federation_folder(path: Path) -> FederationFolder:
    """List the sites of a folder. Raises InvalidInputError when it has none, or names that cannot be used."""
    if not path.is_dir():
        raise InvalidInputError(
            f"data {path} is not a folder; give a folder of sites, each a folder of classes"
        )
    folders = {entry.name: entry for entry in sorted(path.iterdir()) if entry.is_dir()}
    sites = {
        name: folder
        for name, folder in folders.items()
        if name not in (GLOBAL_TEST, SERVER_REFERENCE) and not name.startswith((".", "_"))
    }
    if not sites:
        raise InvalidInputError(f"data {path} has no site folders; expected SITE/CLASS/image files in it")
    for name, folder in sites.items():
        check_name("site", name)
        if not any(entry.is_dir() for entry in folder.iterdir()):
            raise InvalidInputError(
                f"site folder {folder} has no class folders; expected SITE/CLASS/image files"
            )
    group_file = path / GROUP_FILE
    return FederationFolder(
        path, sites, folders.get(GLOBAL_TEST), group_file if group_file.exists() else None
    )
