"""Who sends more than anybody needs to: what is above a rate is dropped, counted, and named in the log once.

Only what a sender's own key has signed is counted against it, so nobody can use up the share of another. What
strangers send counts together: anybody can invent names without end.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass

from fedmedclip.protocol.allowance import Allowance
from fedmedclip.protocol.messages import (
    Abstain,
    Block,
    BlockRequest,
    Complaint,
    Confirmation,
    HeadRequest,
    Join,
    MaskedUpdate,
    MaskKeys,
    MaskShares,
    Message,
    Metrics,
    RenewalRequest,
    Reveal,
    State,
    Status,
    Update,
)

log = logging.getLogger("fedmedclip.aggregator")

STRANGERS = ""
"""Under which is counted what those send who are no members."""

NOT_ACCEPTED = "messages that are not accepted"
BLOCKS_OF_NOTHING = "blocks of nothing"
_KINDS: dict[type[Message], str] = {
    Join: "joins", Status: "statuses", Update: "updates", HeadRequest: "requests",
    BlockRequest: "requests", State: "states", Abstain: "abstentions", Block: "blocks",
    RenewalRequest: "requests for certificates", Metrics: "figures of versions",
    MaskKeys: "keys of masks", MaskShares: "parts of sums", MaskedUpdate: "parts of sums",
    Confirmation: "parts of sums", Reveal: "parts of sums", Complaint: "parts of sums",
}  # fmt: skip
# So many at once, and then one in so many seconds: ten times what the busiest honest site sends.
_RATES = {
    "requests for certificates": (10, 600.0),
    "joins": (30, 2.0), "statuses": (120, 0.5), "updates": (240, 0.2), "requests": (240, 0.2),
    "figures of versions": (30, 2.0), "keys of masks": (60, 1.0), "parts of sums": (240, 0.2),
    "states": (30, 2.0), "abstentions": (30, 2.0), BLOCKS_OF_NOTHING: (2048, 0.02), NOT_ACCEPTED: (10, 60.0),
}  # fmt: skip
_NAMED_AGAIN_SECONDS = 3600.0


@dataclass
class _Flow:
    allowance: Allowance
    dropped: int = 0
    named_at: float | None = None


def kind_of(message: Message) -> str:
    """Return what a message of a site counts as."""
    return _KINDS.get(type(message), NOT_ACCEPTED)


class Floods:
    """What each sender may still send of each kind. Memory goes with the number of members, not of messages.

    Blocks of what is expected are not counted: an upload is as large as a head at most.
    """

    def __init__(self) -> None:
        self._flows: dict[tuple[str, str], _Flow] = {}

    def take(self, sender: str, kind: str, now: float) -> None:
        """Count a message that was accepted as the sender's own."""
        if kind in _RATES:
            self._flow(sender, kind, now).allowance.take(now)

    def drops(self, sender: str, kind: str, now: float) -> bool:
        """Whether to drop a message unread, because the sender has used up its share; counts and names it."""
        if kind not in _RATES:
            return False
        flow = self._flow(sender, kind, now)
        flow.allowance.refill(now)
        if flow.allowance.left >= 1:
            return False
        flow.dropped += 1
        if flow.named_at is None or now - flow.named_at >= _NAMED_AGAIN_SECONDS:
            flow.named_at = now
            log.warning(
                "%s: more %s than any site needs to send; what is too much is dropped and counted "
                "(fedmedclip control status)", sender or "strangers", kind,
            )  # fmt: skip
        return True

    def warn(self, sender: str, now: float, words: str, *values: str) -> None:
        """Log what somebody did wrong, unless that is so often that it would flood the log itself."""
        if not self.drops(sender, NOT_ACCEPTED, now):
            self.take(sender, NOT_ACCEPTED, now)
            log.warning(words, *values)

    def dropped(self) -> Iterator[tuple[str, str, int]]:
        """Yield sender, kind and number of the messages that were dropped, sorted."""
        for (sender, kind), flow in sorted(self._flows.items()):
            if flow.dropped:
                yield sender, kind, flow.dropped

    def _flow(self, sender: str, kind: str, now: float) -> _Flow:
        if (sender, kind) not in self._flows:
            self._flows[sender, kind] = _Flow(Allowance(*_RATES[kind], now))
        return self._flows[sender, kind]
