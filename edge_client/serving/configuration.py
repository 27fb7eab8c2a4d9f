"""What `serve.toml` holds; `fedmedclip init serve` writes an example of every setting."""

from typing import Annotated

import msgspec
from msgspec import Meta

from fedmedclip.edge_client.features.providers import PROCESSOR_ALONE, ProviderNames, parse_provider
from fedmedclip.edge_client.images.readers.settings import ReaderSettings
from fedmedclip.edge_client.serving.dicom.settings import DicomSettings
from fedmedclip.edge_client.serving.folder.settings import FolderSettings
from fedmedclip.edge_client.serving.http.settings import HttpSettings
from fedmedclip.edge_client.versions.recent import MOST_RECENT_IMAGES
from fedmedclip.protocol.configuration.annotations import BundleFolder, File, NewFile, NewFolder


class ServeSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The table `[serve]`. Paths are relative to the configuration file.

    `heads` is followed: when another file takes its place, that answers. Without it, zero-shot answers.
    `most_waiting` bounds how many files of a door wait for an answer. `remember_days` is how long answers
    are kept, and by their digests what came in, so that it is not answered again. Of the last `recent_images`
    the embeddings are kept beside a site's heads, for `recent_days` at most: the site tries new versions on
    them. `insecure` takes a bundle and heads that nobody signed.
    """

    bundle: BundleFolder
    heads: NewFile | None = None
    state: NewFolder = "serve-state"
    most_waiting: Annotated[int, Meta(ge=1, le=1_000_000)] = 1000
    remember_days: Annotated[float, Meta(gt=0, le=3650)] = 30.0
    recent_images: Annotated[int, Meta(ge=0, le=MOST_RECENT_IMAGES)] = 1000
    recent_days: Annotated[float, Meta(gt=0, le=3650)] = 30.0
    insecure: bool = False


class ResourceSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The table `[resources]`: what this box gives to the work.

    `threads` is by default one per core. Each works on an image of its own; `together`, all work on each: a
    lone image is answered sooner, and fewer are in a second. `providers` are ONNX Runtime's, in the order in
    which they are wanted, as in `site.toml`. An image that takes longer than `longest_seconds` ends the
    process, which begins anew without it. Raises InvalidInputError for what is no provider.
    """

    threads: Annotated[int, Meta(ge=1, le=256)] | None = None
    together: bool = False
    providers: ProviderNames = PROCESSOR_ALONE
    longest_seconds: Annotated[int, Meta(ge=5, le=86400)] = 120

    def __post_init__(self) -> None:
        for name in self.providers:
            parse_provider(name)


class ExplainSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The table `[explain]`: how answers are explained where somebody asks for it.

    `seconds` is how long one explanation may take. With `site`, the `site.toml` of the site that this box
    belongs to, it names labels and distances of the nearest training images, which stay there.
    """

    seconds: Annotated[float, Meta(gt=0, le=60)] = 3.0
    site: File | None = None


class ServeConfiguration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file."""

    serve: ServeSettings
    resources: ResourceSettings = ResourceSettings()
    images: ReaderSettings = ReaderSettings()
    explain: ExplainSettings = ExplainSettings()
    http: HttpSettings | None = None
    dicom: DicomSettings | None = None
    folder: FolderSettings | None = None
