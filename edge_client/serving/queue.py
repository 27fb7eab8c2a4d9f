"""The durable queue between the doors and the worker: nothing accepted is lost, nothing is answered twice.

A content is on disk, and then its row in the journal, before a door hears that it is accepted. An attempt is
counted on disk before work on it begins, and the answer is stored together with what has to be delivered. So
whenever the process ends, the next one goes on with exactly what has no answer.

What was being worked on when a process ended may be what ended it. It is tried again with nothing else in
hand, and after `MOST_ATTEMPTS` it is put aside with its reason, and never again stands in the others' way.
"""

import logging
import secrets
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from threading import Condition
from typing import get_args

import msgspec

from fedmedclip.edge_client.serving.answer import Answer
from fedmedclip.edge_client.serving.arrival import SUFFIXES, Accepted, Arrival, Door
from fedmedclip.edge_client.serving.journal import Delivery, Journal, State, Waiting
from fedmedclip.edge_client.serving.spool import Spool
from fedmedclip.edge_client.serving.writer import Writer
from fedmedclip.protocol.errors import FedMedClipError
from fedmedclip.protocol.visible import visible

log = logging.getLogger("fedmedclip.serve")

MOST_ATTEMPTS = 5
_STORING_THREADS = 2
_PAUSE_SECONDS = 1.0
_SECONDS_OF_A_DAY = 86400.0


class QueueFullError(FedMedClipError):
    """So much waits already that a door has to say: later."""


class Work(msgspec.Struct, frozen=True):
    """An arrival to be worked on, and where its content lies. `attempts` includes this one."""

    id: str
    arrival: Arrival
    content: Path
    received_at: float
    attempts: int


class DurableQueue:
    """The queue of the state folder `root`, which the caller has claimed.

    Of each door at most so many wait, so that one with many leaves the others their room. `put_aside` makes
    the answer to what is put aside for a reason, and by outlet what is to be delivered of it.
    """

    def __init__(
        self,
        root: Path,
        most_waiting: int,
        remember_days: float,
        put_aside: Callable[[Work, str], tuple[Answer, Mapping[str, bytes]]],
    ) -> None:
        self.spool = Spool(root)
        self._most_waiting = most_waiting
        self._remember_seconds = remember_days * _SECONDS_OF_A_DAY
        self._answer_aside = put_aside
        self._writer = Writer(root / "serve.db")
        self._storing = ThreadPoolExecutor(_STORING_THREADS, "storing")
        self._changed = Condition()
        self._waiting: dict[str, deque[Waiting]] = {door: deque() for door in get_args(Door)}
        self._suspects: deque[Waiting] = deque()
        self._in_hand: dict[str, Work] = {}
        self._alone = False
        self._accepting: Counter[str] = Counter()
        self._closed = False
        self._waiters: dict[str, list[Future[Answer]]] = {}
        self._delivery_added: Callable[[], None] = lambda: None
        self._load()

    # For the doors

    @property
    def incoming(self) -> Path:
        """The folder, on the queue's own disk, in which doors write files that they hand over."""
        return self.spool.incoming

    def accept(self, arrival: Arrival) -> "Future[Accepted]":
        """Take in what came; it is on disk when the future has its result, and may be acknowledged.

        The future raises QueueFullError when too much waits, FullDiskError, StorageError or OSError when it
        cannot be stored: then nothing was taken in.
        """
        with self._changed:
            there = self._accepting[arrival.door] + len(self._waiting[arrival.door])
            full = self._closed or there >= self._most_waiting
            if not full:
                self._accepting[arrival.door] += 1
        if full:
            refused: Future[Accepted] = Future()
            refused.set_exception(QueueFullError("too many files wait for an answer; send it again later"))
            return refused
        future = self._storing.submit(self._store, arrival)
        # Also when whoever asked has cancelled it before it was begun.
        future.add_done_callback(partial(self._no_longer_accepting, arrival.door))
        return future

    def wait(self, id: str) -> "Future[Answer]":
        """Return a future of the answer to an accepted arrival, also when that is why it was put aside.

        It raises KeyError for an id that is not known. Who no longer waits cancels it.
        """
        future: Future[Answer] = Future()
        with self._changed:
            self._waiters.setdefault(id, []).append(future)
        self._writer.ask(lambda journal: (journal.state_of(id), journal.answer(id))).add_done_callback(
            partial(self._already, id, future)
        )
        return future

    def answer(self, id: str) -> Answer | None:
        """Return the answer to an arrival; None while there is none, and for one that is not known."""
        return self._writer.ask(lambda journal: journal.answer(id)).result()

    def arrival(self, id: str) -> Arrival | None:
        """Return an arrival without key and content; None for one that is not known, or no longer."""
        return self._writer.ask(lambda journal: journal.arrival(id)).result()

    def state_of(self, id: str) -> State | None:
        """Return what has become of an arrival; None for one that is not known, or no longer."""
        return self._writer.ask(lambda journal: journal.state_of(id)).result()

    # For the worker

    def take(self) -> Work | None:
        """Return the next arrival, the doors taking turns; wait for one. None when the queue is closed."""
        while (work := self._taken()) is not None:
            try:
                self._writer.ask(partial(_count_attempts, work.id, work.attempts)).result()
                return work
            except FedMedClipError as error:
                # A full disk, say: it waits until there is room to answer it.
                self.pause()
                self.put_back(work, str(error))
        return None

    def finish(self, work: Work, answer: Answer, payloads: Mapping[str, bytes]) -> None:
        """Store the answer and, by outlet, what is to be delivered; erase the content, tell who waits.

        Raises FullDiskError, StorageError or OSError when that cannot be stored; then nothing is.
        """
        self._settle(work, "answered", answer, payloads)
        self.spool.erase(work.id, work.arrival.suffix)
        self._settled(work, answer)

    def pause(self) -> None:
        """Wait a moment before what failed is tried again, or until the queue is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed, _PAUSE_SECONDS)

    def put_back(self, work: Work, reason: str) -> None:
        """Have an arrival tried again that could not be answered for a reason that is not its own.

        The caller has waited: the next attempt may come at once.
        """
        log.warning("%s is tried again: %s", work.id, reason)
        # Where that cannot be stored either, the next attempt has the same number: it is not counted twice.
        self._writer.ask(partial(_count_attempts, work.id, work.attempts - 1))
        self._again(work, work.attempts - 1)

    def try_again(self, work: Work, reason: str) -> None:
        """Have an arrival tried again at which something failed, or put it aside when that is too often."""
        if work.attempts < MOST_ATTEMPTS:
            log.warning("%s is tried again: %s", work.id, reason)
            self._again(work, work.attempts)
            return
        try:
            self.set_aside(work, reason)
        except (FedMedClipError, OSError) as error:
            # A full disk, say: it waits until there is room to say why.
            self.pause()
            self.put_back(work, visible(error))

    def set_aside(self, work: Work, reason: str) -> None:
        """Put an arrival aside, with its content, and answer it with the reason."""
        log.error("%s, which came by %s, is put aside: %s", work.id, work.arrival.door, reason)
        answer, payloads = self._answer_aside(work, reason)
        self._settle(work, "aside", answer, payloads)
        self.spool.put_aside(work.id, work.arrival.suffix)
        self._settled(work, answer)

    def in_hand(self) -> list[Work]:
        """Return what is being worked on."""
        with self._changed:
            return list(self._in_hand.values())

    # For the outlets

    def when_delivery_is_added(self, act: Callable[[], None]) -> None:
        """Have `act` called, briefly, when there is something to deliver."""
        self._delivery_added = act

    def next_delivery(self, outlet: str) -> Delivery | None:
        """Return the delivery by an outlet that is due first, now or later."""
        return self._writer.ask(lambda journal: journal.next_delivery(outlet)).result()

    def payload(self, delivery: Delivery) -> bytes:
        """Return what is to be delivered. Raises OSError."""
        return self.spool.payload(delivery.id, delivery.outlet).read_bytes()

    def delivered(self, delivery: Delivery) -> None:
        """Note that a delivery is done, and erase what was delivered."""
        self._writer.ask(lambda journal: journal.delivered(delivery.id, delivery.outlet)).result()
        self.spool.payload(delivery.id, delivery.outlet).unlink(missing_ok=True)

    def postpone(self, delivery: Delivery, due_at: float, reason: str) -> None:
        """Note that a delivery failed, and is tried again at a time."""
        self._writer.ask(
            lambda journal: journal.postpone(delivery.id, delivery.outlet, due_at, reason)
        ).result()

    def give_up(self, id: str, outlet: str, reason: str) -> None:
        """Put a delivery aside with its reason, and erase what was to be delivered."""
        self._writer.ask(lambda journal: journal.give_up(id, outlet, reason)).result()
        self.spool.payload(id, outlet).unlink(missing_ok=True)

    # For who looks after it

    def waiting(self) -> int:
        """How many arrivals have no answer yet."""
        with self._changed:
            waiting = sum(map(len, self._waiting.values()))
            return waiting + len(self._suspects) + len(self._in_hand)

    def aside(self) -> list[Answer]:
        """Return the answers to all that was put aside."""
        return self._writer.ask(lambda journal: journal.aside()).result()

    def count_aside(self) -> int:
        """Return how many arrivals were put aside."""
        return self._writer.ask(lambda journal: journal.count("aside")).result()

    def deliveries_waiting(self) -> dict[str, int]:
        """Return how many deliveries wait, by outlet."""
        return self._writer.ask(lambda journal: journal.counts()).result()

    def look_after(self) -> None:
        """Forget what is old enough."""
        before = time.time() - self._remember_seconds
        while forgotten := self._writer.ask(lambda journal: journal.forget(before)).result():
            for id in forgotten:
                self.spool.erase_aside(id)

    def stop_accepting(self) -> None:
        """Accept nothing more, and give the worker nothing more: what is in hand is finished."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def close(self) -> None:
        """Release the files; what has no answer is worked on by the next process."""
        self.stop_accepting()
        self._storing.shutdown()
        self._writer.close()

    # Inside

    def _load(self) -> None:
        found = self._writer.ask(lambda journal: journal.waiting()).result()
        payloads = self._writer.ask(lambda journal: journal.payload_names()).result()
        aside = {answer.id for answer in self.aside()}
        for id in aside:
            # A kill may have come between its row and this.
            for suffix in SUFFIXES:
                self.spool.put_aside(id, suffix)
        self.spool.sweep({f"{waiting.id}{waiting.arrival.suffix}" for waiting in found}, payloads, aside)
        for waiting in found:
            if waiting.attempts >= MOST_ATTEMPTS:
                reason = f"the service ended {waiting.attempts} times while it worked on it"
                self.set_aside(self._work(waiting), reason)
            elif waiting.attempts:
                self._suspects.append(waiting)
            else:
                self._waiting[waiting.arrival.door].append(waiting)

    def _store(self, arrival: Arrival) -> Accepted:
        id, received_at = secrets.token_hex(16), time.time()
        arrival = msgspec.structs.replace(arrival, name=visible(arrival.name))
        stays = isinstance(arrival.content, Path) and not arrival.copy
        if not stays:
            self.spool.keep(id, arrival.content, arrival.suffix)
        try:
            known = self._writer.ask(lambda journal: journal.add(id, arrival, received_at)).result()
        except BaseException:
            self.spool.erase(id, arrival.suffix)
            raise
        if known is not None:
            self.spool.erase(id, arrival.suffix)
            return Accepted(known, True)
        content = arrival.content if stays else b""
        kept = Waiting(id, msgspec.structs.replace(arrival, key="", content=content), received_at, 0)
        with self._changed:
            self._waiting[arrival.door].append(kept)
            self._changed.notify()
        return Accepted(id, False)

    def _no_longer_accepting(self, door: str, future: "Future[Accepted]") -> None:
        with self._changed:
            self._accepting[door] -= 1

    def _taken(self) -> Work | None:
        """Return the next arrival, which is then in hand; None when the queue is closed."""
        with self._changed:
            while (found := self._next()) is None:
                if self._closed:
                    return None
                self._changed.wait()
            work = self._work(found)
            self._in_hand[work.id] = work
            return work

    def _work(self, waiting: Waiting) -> Work:
        content = waiting.arrival.content
        if not isinstance(content, Path):
            content = self.spool.content(waiting.id, waiting.arrival.suffix)
        return Work(waiting.id, waiting.arrival, content, waiting.received_at, waiting.attempts + 1)

    def _again(self, work: Work, attempts: int) -> None:
        again = Waiting(work.id, work.arrival, work.received_at, attempts)
        with self._changed:
            self._in_hand.pop(work.id, None)
            self._alone = False
            # At the end: what fails again and again does not stand in the others' way.
            self._waiting[work.arrival.door].append(again)
            self._changed.notify_all()

    def _next(self) -> Waiting | None:
        """Return what may be worked on now. What may have ended the process is alone in hand."""
        if self._closed or self._alone:
            return None
        if self._suspects:
            if self._in_hand:
                return None
            self._alone = True
            return self._suspects.popleft()
        for door, waiting in self._waiting.items():
            if waiting:
                # To the end of the line: the doors take turns.
                self._waiting[door] = self._waiting.pop(door)
                return waiting.popleft()
        return None

    def _settle(self, work: Work, state: State, answer: Answer, payloads: Mapping[str, bytes]) -> None:
        """Store an answer and what is to be delivered of it, all or nothing."""
        try:
            for outlet, payload in payloads.items():
                self.spool.keep_payload(work.id, outlet, payload)
            outlets, now = sorted(payloads), time.time()
            self._writer.ask(lambda journal: journal.settle(work.id, state, answer, outlets, now)).result()
        except BaseException:
            for outlet in payloads:
                self.spool.payload(work.id, outlet).unlink(missing_ok=True)
            raise

    def _settled(self, work: Work, answer: Answer) -> None:
        with self._changed:
            self._in_hand.pop(work.id, None)
            self._alone = False
            waiters = self._waiters.pop(work.id, [])
            self._changed.notify_all()
        for future in waiters:
            _give(future, answer)
        self._delivery_added()

    def _already(
        self, id: str, future: "Future[Answer]", found: "Future[tuple[State | None, Answer | None]]"
    ) -> None:
        """Give the answer that there is already to who has begun to wait for it."""
        error = found.exception()
        state, answer = (None, None) if error else found.result()
        if state == "waiting" and answer is None:
            return
        with self._changed:
            waiters = self._waiters.get(id, [])
            if future not in waiters:
                # It was answered meanwhile.
                return
            waiters.remove(future)
            if not waiters:
                self._waiters.pop(id)
        if answer is not None:
            _give(future, answer)
        elif future.set_running_or_notify_cancel():
            future.set_exception(error or KeyError(id))


def _give(future: "Future[Answer]", answer: Answer) -> None:
    # False where who waited has gone.
    if future.set_running_or_notify_cancel():
        future.set_result(answer)


def _count_attempts(id: str, attempts: int, journal: Journal) -> None:
    journal.count_attempts(id, attempts)
