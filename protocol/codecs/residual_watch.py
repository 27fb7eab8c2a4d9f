"""What rounds leave to later ones: a line in the log, a share for the journal, a warning when it piles up."""

import logging

from fedmedclip.protocol.codecs.error_feedback import Compressed

log = logging.getLogger("fedmedclip.codec")

# A residual starts at nothing and grows for some rounds under any lossy codec. The default one, given pure
# noise at D = 256, the worst that training could send it, settles at 3.5 times the norm of a round's delta.
_ROUNDS_IN_A_ROW = 5
_MANY_DELTAS = 4.0


class ResidualWatch:
    """Follows the residual of one sender (`what`: "update", "broadcast") while the process lives.

    `shares` has the residual share, |left out| / |delta + residual of before|, of the newest round only: a
    process may live for a million of them.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._norm = 0.0
        self._grown = 0
        self.shares: dict[int, float] = {}

    def note(self, round_number: int, compressed: Compressed) -> None:
        """Take notice of a round; warn when the residual grew five times in a row, to four deltas."""
        self.shares = {round_number: compressed.residual_share}
        log.info(
            "round %d: the %s leaves %.0f %% of what was to be sent to later rounds",
            round_number,
            self._what,
            100 * compressed.residual_share,
        )
        self._grown = self._grown + 1 if compressed.left_out_norm > self._norm else 0
        self._norm = compressed.left_out_norm
        if self._grown >= _ROUNDS_IN_A_ROW and self._norm > _MANY_DELTAS * compressed.delta_norm:
            log.warning(
                "round %d: what the %s leaves out has grown for %d rounds, to %.1f times a round's change; "
                "choose a codec that sends more, such as lowrank:rank=16,bits=4 or int8",
                round_number,
                self._what,
                self._grown,
                self._norm / compressed.delta_norm if compressed.delta_norm else float("inf"),
            )
            self._grown = 0
