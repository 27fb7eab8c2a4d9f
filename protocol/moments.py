"""Which of two messages of a sender is the later one: what makes an old copy worthless.

A moment is (session, connection, sequence), compared in this order. A session is one start of the sender's
process: the seconds since 1970 then, or one more than the session before where that is greater. A connection
counts attempts to reach the broker, a sequence what is said, both within the session; a last will, signed
before anything is said, is the last word of its connection.
"""

import time
from collections.abc import Callable

from fedmedclip.protocol.messages import LAST_WORD, LATEST_SESSION, Moment

SEQUENCE_STEP = 1
"""What two messages of a session lie apart."""


def session_after(before: int, clock: float) -> int:
    """Return the number of a session that begins now: the seconds since 1970, or one more than `before`."""
    # A clock far in the future must leave numbers for later sessions.
    return min(max(before + 1, min(int(clock), LATEST_SESSION // 2)), LATEST_SESSION)


def is_later(moment: Moment, known: Moment | None) -> bool:
    """Whether something said at `moment` is newer than all that was said up to `known`."""
    return known is None or order(moment) > order(known)


def order(moment: Moment) -> tuple[int, int, int]:
    """Return what compares two moments of a sender."""
    return moment.session, moment.connection, moment.sequence


class Moments:
    """The moments of one sender, each later than the one before.

    One thread counts connections, another what is said.

    `store` is handed the number of each session before anything is said in it, and keeps it for the next
    start; `before` is the one that it kept.
    """

    def __init__(
        self, before: int, store: Callable[[int], None], wall_clock: Callable[[], float] = time.time
    ) -> None:
        self._store = store
        self._session = session_after(before, wall_clock())
        self._connection = 0
        self._sequence = 0
        store(self._session)

    def next(self) -> Moment:
        """Return the moment of what is said now."""
        self._sequence += SEQUENCE_STEP
        return self._latest()

    def connect(self) -> Moment:
        """Begin another connection; return the moment of its last will."""
        self._connection += 1
        return self.last_word()

    def last_word(self) -> Moment:
        """Return the moment of the present connection's last will."""
        return Moment(self._session, self._connection, LAST_WORD)

    def _latest(self) -> Moment:
        return Moment(self._session, self._connection, self._sequence)

    def surpass(self, latest: Moment) -> bool:
        """Begin a session after `latest`, where that is later than what was said last here.

        So goes on who was restored from a backup while its clock stood in the past.
        """
        if order(latest) <= order(self._latest()):
            return False
        self._session = min(latest.session + 1, LATEST_SESSION)
        self._store(self._session)
        return True
