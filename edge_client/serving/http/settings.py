"""The table `[http]` of `serve.toml`: where the door listens, who may come in, with how much."""

from typing import Annotated

from msgspec import Meta

from fedmedclip.protocol.web.settings import ListenSettings


class HttpSettings(ListenSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where the door listens, who may come in, and how much they may bring.

    `largest_upload_bytes` bounds the body of one request, `most_files` the files in it,
    `longest_wait_seconds` how long one waits for its answer before it is told where that will be.
    """

    largest_upload_bytes: Annotated[int, Meta(ge=1024, le=1 << 34)] = 256 << 20
    most_files: Annotated[int, Meta(ge=1, le=1000)] = 64
    longest_wait_seconds: Annotated[float, Meta(ge=0, le=3600)] = 60.0
    longest_upload_seconds: Annotated[float, Meta(gt=0, le=86400)] = 600.0
