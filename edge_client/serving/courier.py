"""Takes answers to where they have to go: one thread for each outlet, so that none waits for another."""

import logging
import time
from threading import Condition, Thread

from fedmedclip.edge_client.serving.journal import Delivery
from fedmedclip.edge_client.serving.outlet import DeliveryError, Outlet
from fedmedclip.edge_client.serving.queue import DurableQueue
from fedmedclip.protocol.errors import FedMedClipError
from fedmedclip.protocol.faults import in_words

log = logging.getLogger("fedmedclip.serve")

FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 300.0
# After trouble with our own files, and at most between two looks.
_LOOK_SECONDS = 5.0
# Of the whole outlet, after several failures in a row.
_LONGEST_REST_SECONDS = 60.0


def pause_after(failures: int) -> float:
    """Return the seconds until the next attempt, after so many failed ones: doubled from 1 s up to 300 s."""
    return float(min(FIRST_PAUSE_SECONDS * 2.0 ** min(failures - 1, 32), LONGEST_PAUSE_SECONDS))


class Courier:
    """Delivers by one outlet until `stop`. While an archive is away, its deliveries wait and no others."""

    def __init__(self, queue: DurableQueue, outlet: Outlet) -> None:
        self._queue = queue
        self._outlet = outlet
        self._changed = Condition()
        self._news = False
        self._ended = False
        self._failing: set[str] = set()
        self._thread = Thread(target=self._run, name=f"outlet {outlet.name}", daemon=True)

    def start(self) -> None:
        """Begin with what earlier processes left."""
        self._thread.start()

    def news(self) -> None:
        """Tell that there may be something to deliver."""
        with self._changed:
            self._news = True
            self._changed.notify()

    def stop(self) -> None:
        """Deliver nothing more; what is on its way arrives, or goes again later."""
        with self._changed:
            self._ended = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended:
            try:
                pause, for_news = self._step()
            except (FedMedClipError, OSError) as error:
                log.warning("outlet %s: %s", self._outlet.name, error)
                pause, for_news = _LOOK_SECONDS, False
            if pause:
                self._rest(pause, for_news)

    def _rest(self, seconds: float, for_news: bool) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._ended or (for_news and self._news), seconds)
            self._news = False

    def _step(self) -> tuple[float, bool]:
        """Deliver what is due; return the seconds until there is more to do, and whether news ends them."""
        delivery = self._queue.next_delivery(self._outlet.name)
        if delivery is None:
            return _LOOK_SECONDS, True
        # At most the longest pause, whatever was done to the clock meanwhile.
        if 0 < (seconds := delivery.due_at - time.time()) <= LONGEST_PAUSE_SECONDS:
            return min(seconds, _LOOK_SECONDS), True
        try:
            payload = self._queue.payload(delivery)
        except FileNotFoundError:
            self._queue.give_up(
                delivery.id, delivery.outlet, "what was to be delivered is gone from the state"
            )
            return 0.0, True
        try:
            answer = self._queue.answer(delivery.id)
            assert answer is not None, "a delivery stands beside its answer"
            self._outlet.deliver(payload, answer)
        except DeliveryError as error:
            return self._failed(delivery, error), False
        # A fault of ours, or a damaged answer, must not end the deliveries of all others.
        except Exception as error:
            return self._failed(delivery, DeliveryError(in_words(error))), False
        self._queue.delivered(delivery)
        if self._failing:
            log.info("outlet %s: delivers again", self._outlet.name)
            self._failing.clear()
        return 0.0, True

    def _failed(self, delivery: Delivery, error: DeliveryError) -> float:
        """Note it; return the seconds until anything is tried again.

        When several fail in a row, what all wait for is away. One that always fails is alone with it.
        """
        if error.permanent:
            log.error("outlet %s: the answer %s is put aside: %s", self._outlet.name, delivery.id, error)
            self._queue.give_up(delivery.id, delivery.outlet, str(error))
            return 0.0
        if not self._failing:
            log.warning("outlet %s: %s; it is tried again until it succeeds", self._outlet.name, error)
        self._failing.add(delivery.id)
        self._queue.postpone(delivery, time.time() + pause_after(delivery.attempts + 1), str(error))
        others = len(self._failing) - 1
        return min(pause_after(others), _LONGEST_REST_SECONDS) if others else 0.0
