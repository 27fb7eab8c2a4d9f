"""The status by the address of an aggregator's page."""

import json
import ssl
import urllib.error
import urllib.request
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

import msgspec

from fedmedclip.aggregator.federation_status import FederationStatus
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.malformed import MALFORMED
from fedmedclip.protocol.private_files import refuse_readers
from fedmedclip.protocol.text_files import read_text_file

PATH = "/api/status"
_TIMEOUT_SECONDS = 10.0
_LARGEST_ANSWER = 64 << 20
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class PageAddress:
    """The page of an aggregator: https://HOST:PORT, or http:// on this machine.

    `token_file` holds the token in its first line; `ca_file` is the certificate authority that the page's
    certificate is of, and `certificate_file` a certificate with its key for a page that asks for one.
    """

    address: str
    token_file: Path | None = None
    ca_file: Path | None = None
    certificate_file: Path | None = None

    def read(self) -> FederationStatus:
        """Return the status. Raises InvalidInputError, with one line, where it cannot be read."""
        url = self._url()
        request = urllib.request.Request(url, headers={"Accept": "application/json"})
        if (token := self._token()) is not None:
            request.add_unredirected_header("Authorization", f"Bearer {token}")
        handlers: list[urllib.request.BaseHandler] = [_NoRedirects()]
        if url.startswith("https:"):
            handlers.append(urllib.request.HTTPSHandler(context=self._context()))
        try:
            with urllib.request.build_opener(*handlers).open(request, timeout=_TIMEOUT_SECONDS) as answer:
                encoded = answer.read(_LARGEST_ANSWER + 1)
        except urllib.error.HTTPError as error:
            raise InvalidInputError(f"{url}: {_in_words(error)}") from error
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            raise InvalidInputError(f"{url} cannot be read: {reason}") from error
        if len(encoded) > _LARGEST_ANSWER:
            raise InvalidInputError(f"{url} answers with more than {_LARGEST_ANSWER:,} bytes: no status")
        try:
            return msgspec.json.decode(encoded, type=FederationStatus)
        except MALFORMED as error:
            raise InvalidInputError(f"{url} answers with no status of this version: {error}") from error

    def _url(self) -> str:
        parts = urlsplit(self.address)
        wrong = f"--address is {self.address!r}; expected https://HOST:PORT"
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
            raise InvalidInputError(wrong)
        if parts.path not in ("", "/") or parts.query or parts.fragment:
            raise InvalidInputError(wrong + " without a path")
        if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
            raise InvalidInputError(f"{wrong}: over http:// the token would be read by others on the way")
        return f"{parts.scheme}://{parts.netloc}{PATH}"

    def _token(self) -> str | None:
        if self.token_file is None:
            return None
        refuse_readers(self.token_file, "--token-file")
        token = read_text_file(self.token_file, "--token-file").split("\n", 1)[0].strip()
        if not token or not token.isascii() or not token.isprintable():
            raise InvalidInputError(f"the first line of --token-file {self.token_file} is no token")
        return token

    def _context(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
            if self.certificate_file is not None:
                context.load_cert_chain(self.certificate_file, password="")
        except (ssl.SSLError, OSError) as error:
            raise InvalidInputError(f"--ca-file or --certificate cannot be used: {error}") from error
        return context


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A page never sends elsewhere; whoever does might be after the token."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: Message,
        newurl: str,
    ) -> None:
        return None


def _in_words(error: urllib.error.HTTPError) -> str:
    try:
        detail = json.loads(error.read(65536)).get("detail", "")
    except (ValueError, AttributeError, OSError):
        detail = ""
    said = {
        401: "the token is missing or wrong (--token-file)",
        403: "refused",
        404: "no page of an aggregator",
    }
    return f"HTTP {error.code}, {detail or said.get(error.code, error.reason)}"
