"""Sending an update until it is settled, and when a round that was refused is trained again."""

import logging
from typing import Protocol

from fedmedclip.edge_client.site.head_follower import ASK_AGAIN_SECONDS
from fedmedclip.edge_client.site.state import OutgoingUpdate, SiteState
from fedmedclip.edge_client.site.watch import Nobody, Observer
from fedmedclip.protocol.messages import Block, BlockRequest, MaskKeys, Message, Receipt, Update
from fedmedclip.protocol.objects import blocks_of, refer_to

log = logging.getLogger("fedmedclip.site")

ANSWER_SECONDS = 3.0
"""For a receipt that may still be on its way."""
RETRY_SECONDS = 60.0
"""How long a site waits before it trains a refused round again, doubling with each refusal."""
LONGEST_RETRY_SECONDS = 3600.0


class Offers(Protocol):
    """What offers an update to a sum, instead of sending it: see `masking`."""

    @property
    def asked_for(self) -> bool: ...
    @property
    def masked_bytes(self) -> int: ...
    def offer(self, round_number: int) -> MaskKeys: ...
    def blocks(self, request: BlockRequest) -> list[Block]: ...
    def limit_messages(self, maximum_message_bytes: int) -> None: ...


class Delivery:
    """The update that lies in the state's outbox, on its way. Messages carry `maximum_message_bytes`."""

    def __init__(self, state: SiteState, maximum_message_bytes: int) -> None:
        self._state = state
        self._maximum_message_bytes = maximum_message_bytes
        self._sent_at: float | None = None
        self._blocks_sent_of_round: int | None = None
        self._refusals = 0
        self._train_not_before = 0.0
        self.masking: Offers | None = None
        """What offers updates to a sum under masks, where the plan asks for it."""
        self.observer: Observer = Nobody()

    @property
    def under_way(self) -> bool:
        """Whether an update is not settled yet."""
        return self._state.outgoing_update() is not None

    def limit_messages(self, maximum_message_bytes: int) -> None:
        """Cut updates into blocks of another size from now on."""
        if maximum_message_bytes != self._maximum_message_bytes:
            self._maximum_message_bytes = maximum_message_bytes
            self._blocks_sent_of_round = None
        if self.masking is not None:
            self.masking.limit_messages(maximum_message_bytes)

    def send_at_once(self) -> None:
        """Let the next `due` send, whenever it was sent last."""
        self._sent_at = None

    def hurry(self, version: int) -> None:
        """Send the update of a round that is over sooner: the aggregator may have gone between counting it
        and its receipt, and nothing is trained until that comes.
        """
        update = self._state.outgoing_update()
        if self._sent_at is not None and update is not None and update.round_number <= version:
            self._sent_at -= ASK_AGAIN_SECONDS - ANSWER_SECONDS

    def unanswered(self, now: float) -> bool:
        """Whether the update was sent, and no receipt came for so long that it is due again."""
        return self._sent_at is not None and now - self._sent_at >= ASK_AGAIN_SECONDS and self.under_way

    def is_due(self, now: float) -> bool:
        """Whether `due` sends the update under way now, if one is."""
        return self._sent_at is None or now - self._sent_at >= ASK_AGAIN_SECONDS

    def due(self, now: float) -> list[Message]:
        """Return what to send now: the update, again for as long as no receipt comes."""
        if not self.is_due(now) or (update := self._state.outgoing_update()) is None:
            return []
        self._sent_at = now
        message = self._message(update)
        if isinstance(message, MaskKeys):
            return [message]
        payload = message.payload
        # Sent once: the link repeats what the broker has not got, the aggregator asks for what is missing.
        if self._blocks_sent_of_round == update.round_number:
            return [message]
        self._blocks_sent_of_round = update.round_number
        return [message, *blocks_of(update.payload, payload)]

    def bytes_due(self, update: OutgoingUpdate) -> int:
        """Return about how many bytes leave when the update under way is sent now."""
        if self.masking is not None and self.masking.asked_for:
            return self.masking.masked_bytes
        referred = not isinstance(refer_to(update.payload, self._maximum_message_bytes), bytes)
        return 0 if referred and self._blocks_sent_of_round == update.round_number else len(update.payload)

    def _message(self, update: OutgoingUpdate) -> Update | MaskKeys:
        if self.masking is not None and self.masking.asked_for:
            return self.masking.offer(update.round_number)
        payload = refer_to(update.payload, self._maximum_message_bytes)
        return Update(update.round_number, update.samples, payload, update.attempt, update.privacy)

    def withhold(self) -> None:
        """Drop an update that its site no longer sends; it is as if it had not counted."""
        if (update := self._state.outgoing_update()) is not None:
            log.warning("the update of round %d is not sent", update.round_number)
            self._state.settle(update.round_number, accepted=False)

    def blocks(self, request: BlockRequest) -> list[Block]:
        """Return the blocks of the update that are asked for; none where it is not asked for."""
        if self.masking is not None and self.masking.asked_for:
            return self.masking.blocks(request)
        update = self._state.outgoing_update()
        return (
            [] if update is None else blocks_asked_for(update.payload, self._maximum_message_bytes, request)
        )

    def take_receipt(self, receipt: Receipt, now: float) -> bool:
        """Settle the update that a receipt is for; return whether it was the one under way.

        A receipt for another update of the same round is an old copy. One that was cut into blocks of another
        size is sent again, and answered again.
        """
        update = self._state.outgoing_update()
        if update is None or (update.round_number, self._message(update).mark) != (
            receipt.round_number,
            receipt.mark,
        ):
            return False
        again = not receipt.accepted and not receipt.closed
        if again:
            wait = self.train_later(now)
            log.warning(
                "update of round %d was refused: %s; trying again in %.0f s",
                receipt.round_number, receipt.reason, wait,
            )  # fmt: skip
            self.observer.note("refused", f"the update of round {receipt.round_number}: {receipt.reason}")
        elif receipt.accepted:
            self._refusals = 0
            self.observer.note("delivered", f"the update of round {receipt.round_number}")
        else:
            log.info("update of round %d does not count: %s", receipt.round_number, receipt.reason)
            self.observer.note("refused", f"the update of round {receipt.round_number}: {receipt.reason}")
        self._state.settle(receipt.round_number, receipt.accepted, again=again)
        return True

    def may_train(self, now: float) -> bool:
        """Whether nothing is under way, and a refusal lies back for long enough."""
        return now >= self._train_not_before and not self.under_way

    def train_later(self, now: float) -> float:
        """Put the next training off, for longer with each refusal; return for how many seconds."""
        # The power is bounded: after 1,024 refusals, six weeks of one an hour, a float would overflow.
        wait = min(LONGEST_RETRY_SECONDS, RETRY_SECONDS * 2.0 ** min(self._refusals, 20))
        self._refusals += 1
        self._train_not_before = now + wait
        return wait

    def begin_run(self) -> None:
        """Forget the refusals of the run before."""
        self._refusals, self._train_not_before = 0, 0.0


def blocks_asked_for(data: bytes, maximum_message_bytes: int, request: BlockRequest) -> list[Block]:
    """Return the blocks of `data` that `request` names; none when it names another object."""
    reference = refer_to(data, maximum_message_bytes)
    if isinstance(reference, bytes) or reference.digest != request.object_digest:
        return []
    return [*blocks_of(data, reference, request.missing)]
