"""The ledger of a site that is about to be one: what it asks, and what is answered."""

import time
from pathlib import Path
from types import TracebackType

from fedmedclip.edge_client.ledger.message_ledger import MessageLedger
from fedmedclip.edge_client.ledger.segments import LEDGER_FOLDER
from fedmedclip.protocol.allowance import Allowance

_ANSWERS_AT_ONCE, _SECONDS_PER_ANSWER = 100.0, 60.0


class RecordedEnrolment:
    """Records in the ledger of the state folder, which is claimed; an empty topic is a file.

    There is no `site.db` yet: the site takes the entries over when it starts.
    """

    def __init__(self, state_folder: Path) -> None:
        self._ledger = MessageLedger(state_folder / LEDGER_FOLDER)
        self._answers = Allowance(_ANSWERS_AT_ONCE, _SECONDS_PER_ANSWER, time.monotonic())

    def __enter__(self) -> "RecordedEnrolment":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ledger.close()

    def left(self, topic: str, request: bytes) -> None:
        """Record a request before it is sent. Raises StorageError where that is not possible."""
        self._ledger.record("out", topic, request, "EnrolmentRequest", "" if topic else "as a file")

    def came(self, topic: str, answer: bytes) -> bool:
        """Record an answer; return whether it may be looked at: more than a disk bears may not."""
        if not self._answers.take(time.monotonic()):
            return False
        self._ledger.record("in", topic, answer, "EnrolmentAnswer", "" if topic else "as a file")
        return True
