"""What the tests of the DICOM door share: images with planted names, answers, a queue in memory, raw PDUs."""

import os
import shutil
import time
from concurrent.futures import Future
from pathlib import Path

import numpy as np

from benchmarks.serving.pdus import MR_IMAGE_STORAGE
from fedmedclip.edge_client.inference.provenance import Provenance
from fedmedclip.edge_client.serving.answer import NOTICE, Answer, Result
from fedmedclip.edge_client.serving.arrival import Accepted, Arrival
from fedmedclip.edge_client.serving.dicom.node import DicomNode
from fedmedclip.edge_client.serving.dicom.settings import DicomSettings
from tests.edge_client.images.dicom_files import EXPLICIT, dicom_file, image_elements, native_bytes

MR, CT = MR_IMAGE_STORAGE, "1.2.840.10008.5.1.4.1.1.2"
PLANTED = ("PLANTED", "Zyxwvut", "19470815", "4711-SECRET")


def image_file(syntax=EXPLICIT, number=1, **changed):
    """A small MR image of a planted patient, as bytes."""
    pixels = (np.arange(48 * 64).reshape(48, 64) * (number + 1) % 251).astype(np.uint8)
    elements = {
        "SOPClassUID": MR,
        "SOPInstanceUID": f"1.2.826.0.1.3680043.8.498.{number}",
        "StudyInstanceUID": "1.2.826.0.1.3680043.8.498.77",
        "SeriesInstanceUID": "1.2.826.0.1.3680043.8.498.77.1",
        "PatientName": "PLANTED^Zyxwvut",
        "PatientID": "4711-SECRET",
        "PatientBirthDate": "19470815",
        "PatientSex": "F",
        "StudyDate": "20240229",
        "StudyTime": "101112",
        "StudyID": "S1",
        "AccessionNumber": "A1",
        "ReferringPhysicianName": "PLANTED^Doctor",
        "Modality": "MR",
    }
    return dicom_file(image_elements(pixels) | elements | changed, native_bytes(pixels, syntax), syntax)


def answer_of(*results):
    """An answer of a federation's head, by default one that is sure of glioma."""
    return Answer(
        id=os.urandom(16).hex(),
        door="dicom",
        name="1.2.826.0.1.3680043.8.498.1",
        received_at=time.time(),
        answered_at=time.time(),
        results=list(results) or [glioma()],
        provenance=Provenance(
            software="fedmedclip-edge 0.2.0",
            bundle="ab" * 32,
            model="ViT-B-16",
            precision="int8",
            heads="cd" * 32,
            method="fedmedclip",
            federation="brain",
            site="north",
            head_version=12,
        ),
        level=0.9,
        notice=NOTICE,
    )


def glioma(frame=None, explanation=None):
    return Result(
        outcome="answered",
        frame=frame,
        label="glioma",
        probabilities={"glioma": 0.875, "healthy": 0.125},
        prediction_set=["glioma"],
        distance=0.5,
        explanation=explanation,
    )


class MemoryQueue:
    """Accepts as the durable queue does; files are moved out of `incoming`. `fault` is what it raises."""

    def __init__(self, folder: Path) -> None:
        self.incoming = folder / "incoming"
        self.incoming.mkdir()
        self.kept = folder / "kept"
        self.kept.mkdir()
        self.arrivals: dict[str, Arrival] = {}
        self.fault: Exception | None = None

    def accept(self, arrival: Arrival) -> "Future[Accepted]":
        future: Future[Accepted] = Future()
        if self.fault is not None:
            future.set_exception(self.fault)
            return future
        known = arrival.key in self.arrivals
        if not known:
            shutil.move(arrival.content, self.kept / str(len(self.arrivals)))
            self.arrivals[arrival.key] = arrival
        future.set_result(Accepted(arrival.key[-32:], known))
        return future

    def contents(self):
        return [path.read_bytes() for path in sorted(self.kept.iterdir())]


def started_node(queue, **settings):
    """A node on a free port of the loopback interface that anybody may call, unless told otherwise."""
    defaults = {"port": 0, "any_peer": "peers" not in settings, "idle_seconds": 20}
    node = DicomNode(DicomSettings(**defaults | settings), queue.accept, queue.incoming)
    node.start()
    return node
