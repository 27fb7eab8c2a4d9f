"""Renewing a site's TLS certificate over the federation's own topics, long before it ends."""

import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from fedmedclip.edge_client.site.credentials import Credentials
from fedmedclip.protocol.certificates import read_certificate_file
from fedmedclip.protocol.messages import Renewal, RenewalRequest

log = logging.getLogger("fedmedclip.site")

# The centre may have to wait for a person with the authority's passphrase.
ASK_AGAIN_SECONDS = 6 * 3600.0
_WARN_BEFORE = timedelta(days=30)


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Renewing:
    """Asks for a new certificate when two thirds of the old one's life are over, and installs it.

    The connection stays: the new one is shown when a connection is made next.
    """

    def __init__(
        self, credentials: Credentials, authority: Path, site: str, clock: Callable[[], datetime] = _utc_now
    ) -> None:
        self._credentials = credentials
        self._authority = authority
        self._site = site
        self._clock = clock
        self._asked_at: float | None = None

    def due(self, now: float) -> list[RenewalRequest]:
        """Return the request that is due at `now`, a reading of a monotonic clock in seconds."""
        if self._asked_at is not None and now - self._asked_at < ASK_AGAIN_SECONDS:
            return []
        # Looked at as seldom as it is asked for: reading a file at each tick would keep a disk awake.
        self._asked_at = now
        if not self._credentials.present or not self._credentials.is_due(self._clock()):
            return []
        left = self._credentials.certificate().not_valid_after_utc - self._clock()
        tell = log.warning if left < _WARN_BEFORE else log.info
        tell("the certificate for the broker ends in %d days; asking for a new one", left.days)
        return [RenewalRequest(self._credentials.ask(self._site))]

    def take(self, renewal: Renewal) -> None:
        """Install a new certificate. Raises MessageError for one that is not for this site's request."""
        authority = read_certificate_file(self._authority)
        self._credentials.install(renewal.certificate, self._site, authority)
        end = self._credentials.certificate().not_valid_after_utc
        log.info("the certificate for the broker is renewed; it ends at %s UTC", f"{end:%Y-%m-%d %H:%M}")
