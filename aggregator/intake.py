"""What becomes of an update: it counts, it is refused, or its round is closed. No messages, no rounds.

update or block -> complete -> decoded, its norm looked at -> on disk -> Verdict
"""

import logging
from dataclasses import dataclass

from fedmedclip.aggregator.store import Store
from fedmedclip.aggregator.uploads import UploadDamagedError, Uploads
from fedmedclip.protocol.codecs import decode_delta
from fedmedclip.protocol.codecs.error_feedback import norm_of
from fedmedclip.protocol.errors import MessageError
from fedmedclip.protocol.heads.head import HeadSpecification
from fedmedclip.protocol.messages import Block, BlockRequest, Update

log = logging.getLogger("fedmedclip.aggregator")


@dataclass(frozen=True)
class Terms:
    """What an update is measured by at the moment: the round after `version` is open unless `finished`.

    One that is up to `maximum_staleness` rounds late counts in the open round. With `private` one that says
    nothing of its privacy is refused.
    """

    version: int
    finished: bool
    maximum_norm: float
    maximum_staleness: int
    private: bool = False


@dataclass(frozen=True)
class Verdict:
    """`refusal` says why the update of this round does not count; empty where it does.

    `mark` is the update's, `closed` as in a Receipt; `known` where it was stored before; `late` where it is
    of an earlier round.
    """

    round_number: int
    mark: bytes
    refusal: str = ""
    closed: bool = False
    known: bool = False
    late: bool = False


class Intake:
    """Takes updates of members, whole or in blocks. One that counts is on disk when its verdict is given."""

    def __init__(self, store: Store, specification: HeadSpecification) -> None:
        self._store = store
        self._specification = specification
        self._uploads = Uploads(store, specification)

    def update(
        self,
        site: str,
        update: Update,
        terms: Terms,
        now: float,
        *,
        drawn: bool = True,
        dropped: bool = False,
        unwanted: str = "",
    ) -> Verdict | None:
        """Take an update's message; return what becomes of it, None while its blocks are on their way.

        `drawn` says whether the site was drawn for the update's round, `dropped` that the round is made
        without it, and `unwanted` why the coordinator wants none of its updates. One that counts already is
        not refused for that: it would be given again, and count twice.
        """
        round_number, mark, last = update.round_number, update.mark, self._store.last_round(site)
        if round_number == last or self._store.counted.holds(site, round_number):
            # One of an earlier round than the last comes of a site that was restored from a backup.
            return Verdict(round_number, mark, known=True)
        if dropped:
            why = f"round {round_number} is made without this site: the coordinator dropped it"
            return Verdict(round_number, mark, why)
        if last < round_number <= terms.version and not self._store.made_here(round_number):
            # It may be in a version that was lost here and taken back: given again, it would count twice.
            return Verdict(round_number, mark, known=True)
        if unwanted:
            return Verdict(round_number, mark, unwanted)
        too_late = terms.version + 1 - round_number > terms.maximum_staleness
        if round_number < last or too_late:
            reason = f"round {round_number} is closed; version {terms.version} is the newest"
            return Verdict(round_number, mark, reason, closed=True)
        if terms.finished:
            # Not closed for good: the run may get more rounds, or this aggregator have lost that it has them.
            return Verdict(round_number, mark, f"no round is open: version {terms.version} is the last")
        if not drawn:
            return Verdict(round_number, mark, f"not drawn for round {round_number}", closed=True)
        if terms.private and update.privacy is None:
            reason = "this run asks for privacy, and the update does not say what its own costs"
            return Verdict(round_number, mark, reason)
        try:
            complete = self._uploads.begin(site, update, now)
        except MessageError as error:
            return Verdict(round_number, mark, str(error))
        return None if complete is None else self._judge(site, *complete, terms)

    def block(self, site: str, block: Block, terms: Terms, now: float) -> Verdict | None:
        """Take a block of an update that is under way; a verdict follows from the last.

        Raises MessageError when the block does not fit.
        """
        try:
            complete = self._uploads.add(site, block, now)
        except UploadDamagedError as error:
            return Verdict(error.update.round_number, error.update.mark, str(error))
        return None if complete is None else self._judge(site, *complete, terms)

    def overdue(self, now: float) -> list[tuple[str, BlockRequest]]:
        """Return what to ask again of whom."""
        return self._uploads.overdue(now)

    def expects(self, site: str, block: Block) -> bool:
        """Whether a block belongs to an update that the site has under way."""
        return self._uploads.expects(site, block)

    def standing(self, site: str) -> object:
        """Return what is here of a site: another value whenever something new of it has come."""
        return self._store.last_round(site), self._uploads.progress(site)

    def forget(self, site: str) -> None:
        """Drop what a site has under way."""
        self._uploads.forget(site)

    def clear(self) -> None:
        """Forget what is under way: its round is closed."""
        self._uploads.clear()

    def _judge(self, site: str, update: Update, payload: bytes, terms: Terms) -> Verdict:
        round_number, mark, limit = update.round_number, update.mark, terms.maximum_norm
        try:
            norm = norm_of(decode_delta(payload, self._specification))
            if norm > limit:
                raise MessageError(f"the update's norm is {norm:.3g}, at most {limit:.3g} counts")
        except MessageError as error:
            self._store.forget_upload(site)
            return Verdict(round_number, mark, str(error))
        self._store.add_update(round_number, site, update.samples, payload, update.privacy)
        log.info("round %d: %s delivered %d bytes", round_number, site, len(payload))
        return Verdict(round_number, mark, late=round_number <= terms.version)
