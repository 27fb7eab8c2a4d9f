"""The door and the outlet of a `[folder]` table."""

from collections.abc import Sequence
from pathlib import Path

from fedmedclip.edge_client.serving.folder.answers_csv import AnswersCsv
from fedmedclip.edge_client.serving.folder.door import FolderDoor
from fedmedclip.edge_client.serving.folder.outlet import FolderOutlet
from fedmedclip.edge_client.serving.folder.place import Place
from fedmedclip.edge_client.serving.folder.settings import FolderSettings
from fedmedclip.edge_client.serving.queue import DurableQueue
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.visible import visible


def folder_door(settings: FolderSettings, folder: Path, queue: DurableQueue, state: Path) -> FolderDoor:
    """Return the door that watches `folder`; it remembers what it saw in the folder `state`."""
    return FolderDoor(settings, folder, queue, state / "folder.db")


def folder_outlet(
    settings: FolderSettings, folder: Path, output: Path | None, class_names: Sequence[str], state: Path
) -> FolderOutlet:
    """Return the outlet that writes beside the images of `folder`, or into `output`, which is made.

    Raises InvalidInputError when `output` cannot be made.
    """
    try:
        if output is not None:
            output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidInputError(
            f"folder.output {visible(output)} cannot be made ({error.strerror}); name another folder"
        ) from error
    place = output or folder
    table = AnswersCsv(place, class_names, state / "folder-rows.db") if settings.csv else None
    return FolderOutlet(Place(place), table, make_folders=output is not None)
