"""The table `[page]`: where a page for the operator's browser is, and whether it may change anything."""

from typing import Annotated, ClassVar

from msgspec import Meta

from fedmedclip.protocol.web.settings import ListenSettings

ADDRESS_FILE = "page.address"
"""In the state folder while there is a page of what runs: what a browser is given."""


class PageSettings(ListenSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where the page is; of everything else as `[http]` of serve.toml has it.

    With `allow_changes` the page has buttons, which work for whoever has given the token. Without `token` and
    `token_file` there is one in the state folder then, made at the first start.
    """

    TABLE: ClassVar[str] = "page"

    port: Annotated[int, Meta(ge=0, le=65535)] = 8780
    allow_changes: bool = False
