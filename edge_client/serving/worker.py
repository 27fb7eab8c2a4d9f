"""From what waits to what is answered: one file after the other, on as many threads as the encoder has.

content -> reader -> pixels -> encoder -> heads -> answer, with what the outlets will deliver, on disk
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from threading import Thread

import msgspec
import numpy as np
import numpy.typing as npt

from fedmedclip.edge_client.images.opening import (
    UnreadableImageError,
    frames_of,
    quiet_decoders,
    read_image,
)
from fedmedclip.edge_client.images.readers.address import parse_address
from fedmedclip.edge_client.images.readers.settings import ReaderSettings
from fedmedclip.edge_client.inference.classifier import Classifier
from fedmedclip.edge_client.inference.provenance import Provenance
from fedmedclip.edge_client.serving.active import ActiveClassifier
from fedmedclip.edge_client.serving.answer import NOTICE, Answer, Explanation, Result
from fedmedclip.edge_client.serving.figures import Figures
from fedmedclip.edge_client.serving.outlet import Outlet
from fedmedclip.edge_client.serving.queue import DurableQueue, Work
from fedmedclip.protocol.bundle.preprocessing import fit
from fedmedclip.protocol.errors import FedMedClipError
from fedmedclip.protocol.faults import in_words
from fedmedclip.protocol.visible import visible

log = logging.getLogger("fedmedclip.serve")

Pixels = npt.NDArray[np.uint8]
Embedding = npt.NDArray[np.float32]
Note = Callable[[Classifier, Embedding, Result, Work], None]
"""Told of each image that is answered: its classifier, its embedding (D,), its result, how it came."""
Explain = Callable[[Classifier, Pixels, Embedding], Explanation]


class Worker:
    """Answers what the queue holds, on `threads` threads, until the queue is closed.

    `note` is told of each image once its answer is on disk; `explain` is asked where an arrival wants it.
    """

    def __init__(
        self,
        queue: DurableQueue,
        active: ActiveClassifier,
        settings: ReaderSettings,
        outlets: Sequence[Outlet],
        figures: Figures,
        threads: int,
        note: Note | None = None,
        explain: Explain | None = None,
    ) -> None:
        self._queue = queue
        self._active = active
        self._settings = settings
        self._outlets = outlets
        self._figures = figures
        self._note = note
        self._explain = explain
        self._done: dict[str, int] = {}
        self._threads = [
            Thread(target=self._run, name=f"worker {number}", daemon=True) for number in range(threads)
        ]

    def start(self) -> None:
        """Begin with what earlier processes left."""
        for thread in self._threads:
            thread.start()

    def join(self, seconds: float | None = None) -> None:
        """Wait until what is in hand is answered, once the queue accepts nothing more; so long at most."""
        until = None if seconds is None else time.monotonic() + seconds
        for thread in self._threads:
            thread.join(None if until is None else max(until - time.monotonic(), 0))

    def progress(self) -> dict[str, int]:
        """Return how many steps are done for each file in hand, by its id."""
        return dict(self._done)

    def _run(self) -> None:
        with quiet_decoders():
            while (classifier := self._active.wait()) is not None and (
                work := self._queue.take()
            ) is not None:
                self._done[work.id] = 0
                try:
                    # The newest: heads may have changed while it waited for work.
                    self._work(work, self._active.classifier() or classifier)
                # What comes after an answer, such as the watch for drift, must not end the thread.
                except Exception as error:
                    log.error("after the answer %s: %s", work.id, in_words(error))
                finally:
                    self._done.pop(work.id)

    def _work(self, work: Work, classifier: Classifier) -> None:
        try:
            images = list(self._images(work, classifier))
            results = [image.result for image in images]
            answer = answer_of(work, classifier.provenance, classifier.level, results)
            self._done[work.id] += 1
            first = next((image.pixels for image in images if image.pixels is not None), None)
            payloads, refused = prepared(self._outlets, work, answer, first)
        # A fault of ours, or an encoder without memory, must not keep the others waiting.
        except Exception as error:
            self._queue.try_again(work, in_words(error))
            return
        try:
            self._queue.finish(work, answer, payloads)
        except (FedMedClipError, OSError) as error:
            # A full disk: of the box and not of the image.
            self._queue.pause()
            self._queue.put_back(work, visible(error))
            return
        for outlet, reason in refused.items():
            log.error("outlet %s: nothing is delivered for %s: %s", outlet, work.id, reason)
            self._queue.give_up(work.id, outlet, reason)
        self._figures.count(answer)
        for image in images:
            if image.embedding is not None and self._note is not None:
                self._note(classifier, image.embedding, image.result, work)

    def _images(self, work: Work, classifier: Classifier) -> Iterator["_Image"]:
        frames = frames_of(work.content, self._settings)
        for path in frames:
            frame = parse_address(path).number if len(frames) > 1 else None
            started = time.perf_counter()
            self._done[work.id] += 1
            try:
                pixels = np.asarray(
                    fit(read_image(path, self._settings), classifier.bundle.manifest.preprocessing)
                )
            except UnreadableImageError as error:
                yield _Image(
                    Result(outcome="unreadable", frame=frame, reason=visible(error.reason)), None, None
                )
                continue
            embedding, result = classified(classifier, pixels, frame, started)
            if work.arrival.explain and self._explain is not None:
                result = msgspec.structs.replace(
                    result, explanation=self._explain(classifier, pixels, embedding)
                )
            yield _Image(result, pixels, embedding)


class _Image(msgspec.Struct, frozen=True):
    """One image of a file: its result, and where it could be read, pixels and embedding."""

    result: Result
    pixels: Pixels | None
    embedding: Embedding | None


def answer_of(work: Work, provenance: Provenance, level: float | None, results: list[Result]) -> Answer:
    """Return the answer to a file, from what answers and its results."""
    return Answer(
        id=work.id,
        door=work.arrival.door,
        name=work.arrival.name,
        received_at=work.received_at,
        answered_at=time.time(),
        results=results,
        provenance=provenance,
        level=level,
        notice=NOTICE,
    )


def prepared(
    outlets: Sequence[Outlet], work: Work, answer: Answer, pixels: Pixels | None
) -> tuple[dict[str, bytes], dict[str, str]]:
    """Return by outlet what is to be delivered, and by outlet why nothing is; `pixels` as for an outlet."""
    payloads, refused = {}, {}
    for outlet in outlets:
        try:
            payload = outlet.prepare(work.arrival, work.content, answer, pixels)
        # What a header leads a library to raise must not cost the answer.
        except Exception as error:
            refused[outlet.name] = in_words(error)
        else:
            if payload is not None:
                payloads[outlet.name] = payload
    return payloads, refused


def classified(
    classifier: Classifier, pixels: Pixels, frame: int | None, started: float
) -> tuple[Embedding, Result]:
    """Return the embedding (D,) and the result of an image uint8 (height, width, 3)."""
    embedding = classifier.encode(pixels[None])
    [found] = classifier.classify(embedding)
    milliseconds = round((time.perf_counter() - started) * 1000, 3)
    return embedding[0], Result(
        outcome=found.outcome,
        frame=frame,
        label=found.label,
        probabilities=found.probabilities,
        prediction_set=None if found.prediction_set is None else list(found.prediction_set),
        distance=found.distance,
        ensemble_weight=found.ensemble_weight,
        milliseconds=milliseconds,
    )
