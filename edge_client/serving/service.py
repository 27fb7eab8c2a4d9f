"""The resident service as a process: state folder, encoder, queue, worker, outlets and doors, in one."""

import itertools
import logging
import os
import sys
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from fedmedclip.edge_client.cores import available_cores
from fedmedclip.edge_client.features.provider_choice import open_encoder
from fedmedclip.edge_client.features.self_test import require_self_test_once
from fedmedclip.edge_client.inference.classifier import Classifier
from fedmedclip.edge_client.inference.provenance import provenance_of
from fedmedclip.edge_client.serving.active import ActiveClassifier
from fedmedclip.edge_client.serving.answer import Answer, Result
from fedmedclip.edge_client.serving.configuration import ServeConfiguration
from fedmedclip.edge_client.serving.courier import Courier
from fedmedclip.edge_client.serving.door import Door
from fedmedclip.edge_client.serving.doors import make_doors, make_outlets
from fedmedclip.edge_client.serving.drift.noting import DriftNotes
from fedmedclip.edge_client.serving.drift.watch import DriftWatch
from fedmedclip.edge_client.serving.figures import Figures
from fedmedclip.edge_client.serving.outlet import Outlet
from fedmedclip.edge_client.serving.parts import Parts, Place
from fedmedclip.edge_client.serving.queue import DurableQueue, Work
from fedmedclip.edge_client.serving.reasons import Reasons
from fedmedclip.edge_client.serving.watchdog import Watchdog
from fedmedclip.edge_client.serving.worker import Embedding, Note, Worker, answer_of, prepared
from fedmedclip.edge_client.versions.recent import RECENT, RecentImages
from fedmedclip.protocol.bundle.bundle import Bundle, open_bundle
from fedmedclip.protocol.configuration import read_configuration, require_paths
from fedmedclip.protocol.errors import FedMedClipError, FullDiskError, InvalidInputError
from fedmedclip.protocol.state_folder import claim_state_folder
from fedmedclip.protocol.trust.decision import Trust, trust_of_user
from fedmedclip.protocol.visible import visible

log = logging.getLogger("fedmedclip.serve")

_TICK_SECONDS = 1.0
_TICKS_BETWEEN_SAVING = 60
_TICKS_BETWEEN_CLEANING = 600


def run_serve(configuration_file: Path) -> None:
    """Serve as `configuration_file` says, until KeyboardInterrupt ends it cleanly.

    Raises FedMedClipError for anything that a person has to mend.
    """
    configuration = read_configuration(configuration_file, ServeConfiguration)
    require_paths(configuration_file, configuration)
    settings, place = configuration.serve, Place(configuration, configuration_file)
    threads = configuration.resources.threads or available_cores()

    def trust() -> Trust:
        return trust_of_user(insecure=settings.insecure)

    with claim_state_folder(place.state), ExitStack() as opened:
        _sweep_parts(place.state)
        bundle = open_bundle(place.beside(settings.bundle), with_text=False)
        trust().require_bundle(bundle)
        outlets = make_outlets(place, bundle)
        providers = configuration.resources.providers
        if require_self_test_once(bundle, place.state, threads, providers):
            log.info("self-test passed: this machine computes what the bundle's maker computed")
        encoder = opened.enter_context(
            open_encoder(bundle, threads, providers, resident=configuration.resources.together)
        )
        heads = None if settings.heads is None else place.beside(settings.heads)
        active = ActiveClassifier(bundle, encoder, heads, trust)
        set_aside = partial(answer_set_aside, bundle, active, outlets)
        queue = DurableQueue(place.state, settings.most_waiting, settings.remember_days, set_aside)
        opened.callback(queue.close)
        drift = DriftWatch(place.state)
        opened.callback(drift.save_now)
        recent = None
        if heads is not None:
            most, days = settings.recent_images, settings.recent_days
            recent = RecentImages(heads.with_name(RECENT), bundle.digest, most, days)
            opened.callback(recent.save)
        _serve(Parts(place, bundle, queue, active, Figures(), drift, recent), outlets, threads)


def _sweep_parts(state: Path) -> None:
    """Erase what a kill left of files that were being written: nobody else writes into this folder."""
    for part in state.glob(".*.partial"):
        part.unlink(missing_ok=True)


def answer_set_aside(
    bundle: Bundle, active: ActiveClassifier, outlets: Sequence[Outlet], work: Work, reason: str
) -> tuple[Answer, dict[str, bytes]]:
    """Return the answer to what is put aside, and what is to be delivered of it."""
    classifier = active.classifier()
    provenance = provenance_of(bundle, None, None, None) if classifier is None else classifier.provenance
    result = Result(outcome="unreadable", reason=f"put aside: {reason}")
    answer = answer_of(work, provenance, None, [result])
    return answer, prepared(outlets, work, answer, None)[0]


def _serve(parts: Parts, outlets: Sequence[Outlet], threads: int) -> None:
    doors = make_doors(parts)
    if not doors:
        raise InvalidInputError(
            f"{parts.place.file} opens no door; give it a table [http], [dicom] or [folder]"
        )
    explaining = parts.place.configuration.explain
    site = None if explaining.site is None else parts.place.beside(explaining.site)
    worker = Worker(
        parts.queue,
        parts.active,
        parts.place.configuration.images,
        outlets,
        parts.figures,
        threads,
        _notes(parts),
        Reasons(parts.bundle, explaining.seconds, site).explain,
    )
    couriers = [Courier(parts.queue, outlet) for outlet in outlets]
    parts.queue.when_delivery_is_added(partial(_tell, couriers))
    worker.start()
    for courier in couriers:
        courier.start()
    try:
        _look_after(parts, worker, open_doors(doors))
    except KeyboardInterrupt:
        log.info("stopping: what is in hand is answered, what waits is answered at the next start")
    finally:
        for door in doors:
            door.stop()
        parts.queue.stop_accepting()
        parts.active.end()
        # Not for ever: a decoder may hang.
        worker.join(parts.place.configuration.resources.longest_seconds)
        for courier in couriers:
            courier.stop()


def _notes(parts: Parts) -> Note:
    """Return what is told of each image that is answered."""
    drift, recent = DriftNotes(parts.drift), parts.recent

    def note(classifier: Classifier, embedding: Embedding, result: Result, work: Work) -> None:
        if recent is not None:
            recent.note(embedding)
        drift(classifier, embedding, result, work)

    return note


def _tell(couriers: Sequence[Courier]) -> None:
    for courier in couriers:
        courier.news()


def open_doors(doors: Sequence[Door]) -> list[Door]:
    """Open doors; return those for which the disk is too full now. Raises InvalidInputError."""
    closed = []
    for door in doors:
        try:
            door.start()
        except FullDiskError:
            closed.append(door)
        else:
            log.info("open: %s", door.described())
    return closed


def _look_after(parts: Parts, worker: Worker, closed: Sequence[Door]) -> None:
    """Follow the heads, watch the work, open what is still closed, forget what is old, for ever."""
    if closed:
        log.warning("the disk is full: %d doors open when there is room", len(closed))
    watchdog = Watchdog(parts.place.configuration.resources.longest_seconds)
    never = threading.Event()
    for tick in itertools.count(1):
        never.wait(_TICK_SECONDS)
        parts.active.refresh()
        closed = open_doors(closed)
        if hung := watchdog.hung(worker.progress()):
            _begin_anew(parts, hung)
        if tick % _TICKS_BETWEEN_SAVING == 0:
            parts.drift.save_now()
            if parts.recent is not None:
                parts.recent.save()
        if tick % _TICKS_BETWEEN_CLEANING == 0:
            try:
                parts.queue.look_after()
            except (FedMedClipError, OSError) as error:
                log.warning("%s", visible(error), extra={"event": "queue.not_looked_after"})


def _begin_anew(parts: Parts, hung: Sequence[str]) -> None:
    """Put aside what hung, and have this process replaced by a new one of itself."""
    seconds = parts.place.configuration.resources.longest_seconds
    for work in parts.queue.in_hand():
        if work.id in hung:
            try:
                parts.queue.set_aside(work, f"it was worked on for {seconds} s without an end")
            except (FedMedClipError, OSError) as error:
                # On a full disk, say. The attempt is counted, so it is put aside in the end all the same.
                log.warning("%s", visible(error), extra={"event": "queue.not_put_aside"})
    log.error("a decoder hangs, which only a new process ends: beginning anew")
    logging.shutdown()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
