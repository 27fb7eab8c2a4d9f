"""A page beside a process that does something else: it starts, or says why not."""

import logging
import secrets
import time
from contextlib import suppress
from pathlib import Path

from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.new_files import write_new_file
from fedmedclip.protocol.pages.application import page_application
from fedmedclip.protocol.pages.live import Audience
from fedmedclip.protocol.pages.page import Page
from fedmedclip.protocol.pages.settings import ADDRESS_FILE, PageSettings
from fedmedclip.protocol.private_files import refuse_readers
from fedmedclip.protocol.text_files import read_text_file
from fedmedclip.protocol.web.server import WebServer
from fedmedclip.protocol.web.settings import read_token, require_token

log = logging.getLogger("fedmedclip.page")

TOKEN_FILE = "page.token"
"""In the state folder: what changes on the page ask for, where the configuration names no token."""


class PageServer(WebServer):
    """Serves a page from `start` to `stop`. `address` is what a browser is given."""

    grace_seconds = 0.0
    _LOOK_SECONDS = 0.2

    def __init__(self, page: Page, settings: PageSettings, state_folder: Path) -> None:
        """Raises InvalidInputError for a token or certificates that cannot be used."""
        token = read_token(settings)
        if token is None and settings.allow_changes:
            token = _own_token(state_folder / TOKEN_FILE)
        self._audience = Audience()
        super().__init__(
            settings, lambda hurry: page_application(page, settings, token, hurry, self._audience)
        )
        self._settings = settings
        self._address_file = state_folder / ADDRESS_FILE

    def start(self) -> None:
        """See `WebServer.start`."""
        super().start()
        try:
            self._address_file.write_text(f"{self.address}\n", encoding="utf-8")
        except OSError as error:
            log.warning("cannot write %s (%s)", self._address_file, error.strerror)

    def stay(self, seconds: float) -> None:
        """Return when nobody follows the page, after so many seconds, or at a Ctrl-C.

        For when what it tells is over, so that nothing is left that an interruption could interrupt.
        """
        self._address_file.unlink(missing_ok=True)
        until = time.monotonic() + seconds
        with suppress(KeyboardInterrupt):
            while self._audience.present and time.monotonic() < until:
                time.sleep(self._LOOK_SECONDS)

    def stop(self) -> None:
        """See `WebServer.stop`; who reads along is told so at once."""
        self._address_file.unlink(missing_ok=True)
        super().stop()

    @property
    def address(self) -> str:
        """Return what a browser is given."""
        return self._settings.address(self.port)


def start_page(page: Page, settings: PageSettings, state_folder: Path) -> PageServer | None:
    """Return a page that is served; None, with a warning, where its address is taken or is not to be had.

    Raises InvalidInputError for a token or certificates that cannot be used.
    """
    try:
        server = PageServer(page, settings, state_folder)
    except OSError as error:
        log.warning("there is no page: %s", error)
        return None
    try:
        server.start()
    except InvalidInputError as error:
        log.warning("there is no page: %s", error)
        return None
    log.info("page: %s", server.address)
    return server


def _own_token(path: Path) -> bytes:
    if not path.exists():
        write_new_file(path, secrets.token_urlsafe(24).encode() + b"\n", private=True)
        log.info("changes on the page ask for the token in %s", path)
    refuse_readers(path, "the page's token")
    token = read_text_file(path, "the page's token").strip()
    require_token(token, f"the first line of {path}")
    return token.encode()
