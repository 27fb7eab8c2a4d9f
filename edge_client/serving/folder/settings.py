"""What `[folder]` in `serve.toml` holds."""

from typing import Annotated

import msgspec
from msgspec import Meta

from fedmedclip.protocol.configuration.annotations import NewFolder

Folder = Annotated[str, Meta(description="the folder to watch", extra={"path": "folder"})]


class FolderSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The table `[folder]`. Paths are relative to the configuration file.

    Answers go beside the images in `path`, or into the same sub-folders of `output`. Every `poll_seconds` the
    folder is looked at, whether the system tells of changes or, as for network shares, not. A file is read
    when two looks at least `settle_seconds` apart found it the same. `recursive` takes sub-folders along;
    links are never followed. With `csv` each answer is a row of `answers.csv`, too. Files beyond `most_files`
    in all are not looked at, which is said.
    """

    path: Folder
    output: NewFolder | None = None
    poll_seconds: Annotated[float, Meta(ge=0.05, le=86_400)] = 10.0
    settle_seconds: Annotated[float, Meta(ge=0.05, le=3_600)] = 2.0
    recursive: bool = True
    csv: bool = True
    most_files: Annotated[int, Meta(ge=1, le=10_000_000)] = 500_000
