"""Following the global head: apply each delta, ask for what is missing, prove that the bits are the same."""

import logging
from collections.abc import Callable

from fedmedclip.protocol.codecs import decode_head, maximum_encoded_bytes
from fedmedclip.protocol.codecs.error_feedback import apply_delta
from fedmedclip.protocol.heads.head import HeadSpecification, NamedArrays, head_digest
from fedmedclip.protocol.messages import Announcement, Block, BlockRequest, HeadRequest, Snapshot
from fedmedclip.protocol.objects import Assembly

log = logging.getLogger("fedmedclip.site")

ASK_AGAIN_SECONDS = 20.0
# A broker may lose even what it promised to deliver: after this long a silence, ask.
SILENCE_SECONDS = 300.0
WHOLE_HEAD = -1
# So many answers that the version here is the newest, and one that was announced is taken for lost.
_VAIN_ANSWERS = 2

Request = HeadRequest | BlockRequest


class HeadFollower:
    """Holds the newest global head that this site has; `install(version, head)` is told of each.

    `version` is -1 where none is here yet. Every head is checked against the digest that was announced for it
    before it is installed.
    """

    def __init__(
        self,
        specification: HeadSpecification,
        version: int,
        head: NamedArrays,
        install: Callable[[int, NamedArrays], None],
    ) -> None:
        self._specification = specification
        self.version = version
        self.head = head
        self._install = install
        self.newest_announced = version
        """The newest version that was announced, and is not known to be lost since."""
        self._incoming: tuple[Announcement | Snapshot, Assembly] | None = None
        self._asked_at: float | None = None
        self._asked_for_blocks = False
        self._asked_for_head = False
        self._awaits_answer = False
        self._vain_answers = 0
        self._differs = False
        self._heard_at: float | None = None
        self._payload: tuple[int, bytes] | None = None

    def inline_delta(self) -> NamedArrays | None:
        """Return the difference by which the version here came, where an announcement carried it inside."""
        if self._payload is None or self._payload[0] != self.version:
            return None
        return decode_head(self._payload[1], self._specification)

    @property
    def behind(self) -> bool:
        """Whether a newer version than the one here was announced."""
        return self.newest_announced > self.version

    def take(self, carrier: Announcement | Snapshot, now: float) -> list[Request]:
        """Take an announcement or a snapshot; return what has to be asked for. Raises MessageError."""
        self.newest_announced = max(self.newest_announced, carrier.version)
        self._heard_at = now
        if carrier.version < self.version:
            return []
        if carrier.version == self.version:
            self._forget_what_is_gone()
            return self._confirm(carrier, now)
        if isinstance(carrier, Announcement) and carrier.version > self.version + 1:
            return self._ask_for_head(now)
        if carrier.payload is None:
            # A version that was taken back or rolled back to has no delta: it is read as a snapshot.
            return self._ask_for_head(now)
        if self._incoming is None or self._incoming[0] != carrier:
            assembly = Assembly(carrier.payload, maximum_encoded_bytes(self._specification))
            self._incoming = (carrier, assembly)
            self._asked_at = now
        return self._finish(now)

    def expects(self, block: Block) -> bool:
        """Whether a block belongs to what was announced and is on its way."""
        return self._incoming is not None and self._incoming[1].digest == block.object_digest

    def add_block(self, block: Block, now: float) -> list[Request]:
        """Take one block of what was announced; others are ignored. Raises MessageError."""
        if self._incoming is None or self._incoming[1].digest != block.object_digest:
            return []
        self._incoming[1].add(block.index, block.data)
        self._asked_at, self._asked_for_blocks = now, False
        return self._finish(now)

    def tick(self, now: float) -> list[Request]:
        """Ask again for what was promised and stays away, and for news after a long silence.

        The aggregator keeps the newest snapshot only, so blocks asked for in vain may be of one that is gone:
        then, in turn, ask for whatever leads to the newest version.
        """
        if self._heard_at is None:
            # The newest version is retained at the broker: where it does not come at once, it is not there.
            self._heard_at = now - SILENCE_SECONDS + ASK_AGAIN_SECONDS
        if now - self._heard_at >= SILENCE_SECONDS:
            self._heard_at = now
            return [HeadRequest(self.version)]
        if self._asked_at is None or now - self._asked_at < ASK_AGAIN_SECONDS:
            return []
        self._asked_at = now
        self._asked_for_blocks = not self._asked_for_blocks
        if self._asked_for_blocks and self._incoming and (request := self._incoming[1].request()):
            return [request]
        if self._differs:
            return [HeadRequest(WHOLE_HEAD)]
        if self._incoming or self.behind:
            self._asked_for_head = self._awaits_answer = True
            return [HeadRequest(self.version)]
        self._asked_at = None
        return []

    def _confirm(self, carrier: Announcement | Snapshot, now: float) -> list[Request]:
        if carrier.head_digest == head_digest(self.head):
            self._differs = False
            self._remember(carrier)
            return []
        if isinstance(carrier, Snapshot) and carrier.payload is not None:
            self._incoming = (
                carrier,
                Assembly(carrier.payload, maximum_encoded_bytes(self._specification)),
            )
            self._asked_at = now
            return self._finish(now)
        log.warning("version %d differs from the announced one; asking for a whole head", self.version)
        return self._ask_for_whole_head(now)

    def _forget_what_is_gone(self) -> None:
        """Wait no longer for a version that an aggregator announced, and lost before anybody had it.

        Called when it names the version here, which as an answer says that there is no newer one. An old copy
        may look like an answer once; what is trained for its sake is refused.
        """
        if not self.behind or not self._awaits_answer:
            return
        self._awaits_answer = False
        self._vain_answers += 1
        if self._vain_answers < _VAIN_ANSWERS:
            return
        log.warning(
            "version %d was announced and is gone: the aggregator lost it (a restored backup?); version %d "
            "is the newest", self.newest_announced, self.version,
        )  # fmt: skip
        self.newest_announced, self._incoming, self._asked_at = self.version, None, None
        self._asked_for_head, self._vain_answers = False, 0

    def _remember(self, carrier: Announcement | Snapshot) -> None:
        if isinstance(carrier, Announcement) and isinstance(carrier.payload, bytes):
            self._payload = (carrier.version, carrier.payload)

    def _ask_for_whole_head(self, now: float) -> list[Request]:
        self._asked_at, self._differs = now, True
        return [HeadRequest(WHOLE_HEAD)]

    def _ask_for_head(self, now: float) -> list[Request]:
        if self._incoming is not None or self._asked_at is not None:
            return []
        self._asked_at, self._asked_for_head = now, True
        return [HeadRequest(self.version)]

    def _finish(self, now: float) -> list[Request]:
        if self._incoming is None or not self._incoming[1].complete:
            return []
        carrier, assembly = self._incoming
        encoded = assembly.data()
        self._incoming = None
        arrays = decode_head(encoded, self._specification)
        head = (
            arrays if isinstance(carrier, Snapshot) else apply_delta(self.head, arrays, self._specification)
        )
        if head_digest(head) != carrier.head_digest:
            log.warning(
                "version %d does not match its announced digest; asking for a whole head", carrier.version
            )
            return self._ask_for_whole_head(now)
        self._specification.check(head)
        was_asked_for, self._asked_at = self._asked_at is not None and self._asked_for_head, None
        self.version, self.head, self._differs = carrier.version, head, False
        self._awaits_answer, self._vain_answers = False, 0
        self._remember(carrier)
        self._install(carrier.version, head)
        if not self.behind:
            self._asked_for_head = False
        elif was_asked_for:
            # The rest of the answer follows; to ask for it after each delta would bring it many times.
            self._asked_at = now
        else:
            return self._ask_for_head(now)
        return []
