"""Where reports go: files in a folder, and archives. All ways carry the same instances of the same answer."""

import hashlib
import logging
import re
from collections import OrderedDict
from pathlib import Path
from threading import Lock

import msgspec
import numpy as np
import numpy.typing as npt

from fedmedclip.edge_client.serving.answer import Answer
from fedmedclip.edge_client.serving.arrival import Arrival
from fedmedclip.edge_client.serving.dicom.identifiers import uid_of
from fedmedclip.edge_client.serving.dicom.settings import Destination, DicomSettings
from fedmedclip.edge_client.serving.outlet import DeliveryError
from fedmedclip.protocol.new_files import write_new_file

log = logging.getLogger("fedmedclip.serve")

_REMEMBERED = 4


class Instance(msgspec.Struct, frozen=True, array_like=True):
    """One DICOM file (PS3.10), and its SOP Instance UID."""

    uid: str
    content: bytes


class Instances:
    """Makes what is delivered for an answer: a report and, where asked for, a secondary capture.

    The last few are remembered, for the ways that ask next.
    """

    def __init__(self, secondary_capture: bool) -> None:
        self._secondary_capture = secondary_capture
        self._made: OrderedDict[tuple[str, float], bytes | None] = OrderedDict()
        self._lock = Lock()

    def of(
        self, arrival: Arrival, content: Path, answer: Answer, pixels: npt.NDArray[np.uint8] | None
    ) -> bytes | None:
        """Return the packed instances; None for what came by another door, and for what was not read.

        Raises DeliveryError, which is permanent, for an image that no report can be made on.
        """
        if arrival.door != "dicom":
            return None
        # An answer that could not be stored is made again, with the same id, and may say otherwise.
        made_for = answer.id, answer.answered_at
        with self._lock:
            if made_for not in self._made:
                self._made[made_for] = self._make(content, answer, pixels)
                while len(self._made) > _REMEMBERED:
                    self._made.popitem(last=False)
            return self._made[made_for]

    def _make(self, content: Path, answer: Answer, pixels: npt.NDArray[np.uint8] | None) -> bytes | None:
        from fedmedclip.edge_client.serving.dicom.report import write_report
        from fedmedclip.edge_client.serving.dicom.source import read_source

        if all(result.outcome == "unreadable" for result in answer.results):
            reason = answer.results[0].reason if answer.results else None
            log.warning("DICOM: %s has no report: %s", answer.name, reason or "it could not be read")
            return None
        source = read_source(content)
        try:
            made = [Instance(uid_of(answer, "report"), write_report(source, answer) or b"")]
            if self._secondary_capture and pixels is not None:
                from fedmedclip.edge_client.serving.dicom.secondary_capture import write_secondary_capture

                picture = write_secondary_capture(source, answer, pixels)
                made.append(Instance(uid_of(answer, "secondary capture"), picture))
        # What highdicom and pydicom raise may quote the header.
        except Exception as error:
            line = f"no report on {answer.name}: its header cannot be taken over ({type(error).__name__})"
            raise DeliveryError(line, permanent=True) from None
        return msgspec.msgpack.encode(made)


class ReportFiles:
    """Writes each instance to the folder of reports, as UID.dcm."""

    name = "dicom-files"

    def __init__(self, folder: Path, instances: Instances) -> None:
        self._folder = folder
        self.prepare = instances.of

    def deliver(self, payload: bytes, answer: Answer) -> None:
        """Write the files, each by a rename. Raises DeliveryError."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            for instance in _unpacked(payload):
                write_new_file(
                    self._folder / f"{instance.uid}.dcm", instance.content, private=True, alone=True
                )
        except OSError as error:
            raise DeliveryError(f"{self._folder}: a report cannot be written ({error.strerror})") from error


class Archive:
    """Sends the instances to one destination by C-STORE, with the same UIDs each time."""

    def __init__(self, destination: Destination, settings: DicomSettings, instances: Instances) -> None:
        from fedmedclip.edge_client.serving.dicom.tls import client_context

        self.name = outlet_name(destination)
        self._destination = destination
        self._calling = destination.calling_ae_title or settings.ae_title
        self._tls = client_context(destination)
        self.prepare = instances.of

    def deliver(self, payload: bytes, answer: Answer) -> None:
        """Store the instances there. Raises DeliveryError."""
        from fedmedclip.edge_client.serving.dicom.sending import send

        files = [instance.content for instance in _unpacked(payload)]
        send(files, self._destination, self._calling, self._tls)


def outlet_name(destination: Destination) -> str:
    """Return the name of a destination's outlet, which may be a part of a file's name."""
    title = re.sub(r"[^A-Za-z0-9_]", "_", destination.ae_title.strip())
    place = f"{destination.ae_title.strip()} {destination.host} {destination.port}"
    return f"dicom-{title}-{hashlib.sha256(place.encode()).hexdigest()[:8]}"


def _unpacked(payload: bytes) -> list[Instance]:
    return msgspec.msgpack.decode(payload, type=list[Instance])
