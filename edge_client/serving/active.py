"""The classifier that answers: one encoder, and the heads that a site has made active, as they change.

A new heads file takes over between two images. One that cannot be used leaves the one before answering, and
that is said once.
"""

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from threading import Condition

from fedmedclip.edge_client.features.encoder import Encoder
from fedmedclip.edge_client.heads.heads_file import load_trusted_heads
from fedmedclip.edge_client.inference.classifier import Classifier
from fedmedclip.edge_client.inference.provenance import provenance_of
from fedmedclip.protocol.bundle.bundle import Bundle
from fedmedclip.protocol.errors import FedMedClipError
from fedmedclip.protocol.trust.decision import Trust
from fedmedclip.protocol.visible import visible

log = logging.getLogger("fedmedclip.serve")

_LOOKS_AT_WHAT_WAS_REFUSED = 10


class ActiveClassifier:
    """Follows the heads file at `path`; without one, zero-shot answers.

    `trust` gives the keys that are trusted at this moment. Until there are heads that can be used, nobody is
    answered.
    """

    def __init__(
        self, bundle: Bundle, encoder: Encoder, path: Path | None, trust: Callable[[], Trust]
    ) -> None:
        self._bundle = bundle
        self._encoder = encoder
        self._path = path
        self._trust = trust
        self._changed = Condition()
        self._classifier: Classifier | None = None
        self._seen: object = ()
        self._looks = 0
        self._ended = False
        self.fault = ""
        if path is None:
            provenance = provenance_of(bundle, None, None, None)
            self._classifier = Classifier(bundle, encoder, None, provenance)
        else:
            self.refresh()

    def refresh(self) -> None:
        """Take up heads that changed since the last look. Cheap where they did not."""
        if self._path is None:
            return
        seen = _look(self._path)
        self._looks += 1
        # What was refused is looked at again: its key may be trusted by now.
        if seen == self._seen and not (self.fault and self._looks % _LOOKS_AT_WHAT_WAS_REFUSED == 0):
            return
        try:
            heads = load_trusted_heads(self._path, self._bundle, self._trust())
            provenance = provenance_of(self._bundle, heads, self._path, None)
            if _look(self._path) != seen:
                # It was replaced while it was read: the next look takes the new one.
                return
        except (FedMedClipError, OSError) as error:
            if (seen, str(error)) != (self._seen, self.fault):
                goes_on = "the heads before go on answering" if self._classifier else "nobody is answered yet"
                log.warning("%s; %s", error, goes_on, extra={"event": "serve.heads_not_taken"})
            self._seen, self.fault = seen, str(error)
            return
        self._seen = seen
        with self._changed:
            self._classifier = Classifier(self._bundle, self._encoder, heads, provenance)
            self.fault = ""
            self._changed.notify_all()
        log.info("answering now: %s", visible(provenance.in_words()))

    def classifier(self) -> Classifier | None:
        """Return the classifier that answers now, None while there is none."""
        return self._classifier

    def wait(self) -> Classifier | None:
        """Return the classifier that answers now; wait for one. None when the service ends."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended or self._classifier is not None)
            return None if self._ended else self._classifier

    def end(self) -> None:
        """Let nobody wait any longer."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()


def _look(path: Path) -> object:
    """What changes when a file is replaced or written; None while it is not there."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    # The second: where a file system's clock is coarse, one written within the same tick is looked at again.
    fresh = time.time() - found.st_mtime < 2
    return found.st_ino, found.st_size, found.st_mtime_ns, fresh
