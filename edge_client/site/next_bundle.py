"""Noticing the bundle of the next run, which comes to a site by another way than the broker.

the plan names another bundle -> declined -> the folder at `bundle` in site.toml is looked at -> it is
there, whole and trusted -> the site goes on with it, as after a start
"""

import hashlib
import logging
from pathlib import Path

from fedmedclip.edge_client.site.configuration import SiteConfiguration
from fedmedclip.protocol.bundle.bundle import LARGEST_MANIFEST, MANIFEST, open_bundle
from fedmedclip.protocol.configuration import beside, read_configuration
from fedmedclip.protocol.errors import FedMedClipError
from fedmedclip.protocol.paths import open_regular_file, read_at_most
from fedmedclip.protocol.trust.decision import Trust

log = logging.getLogger("fedmedclip.site")

LOOK_EVERY_SECONDS = 30.0


class BundleWatch:
    """Looks where `configuration_file` says that the bundle is, also when that was edited meanwhile."""

    def __init__(
        self, configuration_file: Path, trust: Trust, every_seconds: float = LOOK_EVERY_SECONDS
    ) -> None:
        self._configuration_file = configuration_file
        self._trust = trust
        self._every_seconds = every_seconds
        self._looked_at: float | None = None
        self._wanted: bytes | None = None
        self._said = ""

    def found(self, wanted: bytes | None, now: float) -> bool:
        """Whether the bundle of this digest is there, whole, and signed by whom this site trusts.

        Looks now and again; None, and nothing is looked for, where no other bundle is wanted.
        """
        if wanted is None:
            return False
        if wanted != self._wanted:
            self._wanted, self._looked_at = wanted, None
        if self._looked_at is not None and now - self._looked_at < self._every_seconds:
            return False
        self._looked_at = now
        try:
            return self._is_there(wanted)
        except (FedMedClipError, OSError) as error:
            # Perhaps it is being copied at this moment.
            self._say(f"the bundle of the next run cannot be used yet: {error}")
            return False

    def _is_there(self, wanted: bytes) -> bool:
        settings = read_configuration(self._configuration_file, SiteConfiguration).site
        folder = beside(self._configuration_file, settings.bundle)
        # First the manifest alone: hashing an encoder takes seconds.
        with open_regular_file(folder / MANIFEST) as file:
            manifest = read_at_most(file, LARGEST_MANIFEST)
        if hashlib.sha256(manifest).digest() != wanted:
            self._say(
                f"waiting for the bundle {wanted.hex()[:16]} of the next run: copy it to {folder}, or beside "
                f"it and name that as `bundle` in {self._configuration_file}; this site goes on by itself"
            )
            return False
        bundle = open_bundle(folder)
        self._trust.require_bundle(bundle)
        log.info("the bundle %s of the next run is here, in %s", wanted.hex()[:16], folder)
        return True

    def _say(self, words: str) -> None:
        """Log what is waited for, once until that changes."""
        if words != self._said:
            log.warning("%s", words, extra={"event": "bundle.next_awaited"})
            self._said = words
