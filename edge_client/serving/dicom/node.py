"""The DICOM node: answers C-ECHO, and takes images by C-STORE, which are on disk before it says so."""

import logging
import re
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import evt
from pynetdicom.ae import ApplicationEntity
from pynetdicom.dimse_primitives import C_STORE

from fedmedclip.edge_client.images.readers.dicom_file import read_elements
from fedmedclip.edge_client.images.readers.dicom_values import raw_bytes
from fedmedclip.edge_client.images.readers.refusal import RefusedFileError
from fedmedclip.edge_client.serving.arrival import Accepted, Arrival
from fedmedclip.edge_client.serving.dicom import quiet as quiet
from fedmedclip.edge_client.serving.dicom.access import Access
from fedmedclip.edge_client.serving.dicom.association import PDU_BYTES, PeerAssociation
from fedmedclip.edge_client.serving.dicom.identifiers import IMPLEMENTATION_CLASS_UID, implementation_version
from fedmedclip.edge_client.serving.dicom.received_file import ReceivedFile
from fedmedclip.edge_client.serving.dicom.refusal import (
    NOT_OF_ITS_CLASS,
    NOT_UNDERSTOOD,
    OUT_OF_RESOURCES,
    RefusedStoreError,
)
from fedmedclip.edge_client.serving.dicom.server import NodeServer
from fedmedclip.edge_client.serving.dicom.settings import DicomSettings
from fedmedclip.edge_client.serving.dicom.sop_classes import supported_contexts
from fedmedclip.edge_client.serving.dicom.tls import server_context
from fedmedclip.protocol.errors import FedMedClipError, InvalidInputError

log = logging.getLogger("fedmedclip.serve")

_SUCCESS = 0x0000
_UID = re.compile(r"[0-9]+(\.[0-9]+)+")
_CONTEXT = {
    "sop_class": "SOPClassUID",
    "sop_instance": "SOPInstanceUID",
    "study": "StudyInstanceUID",
    "series": "SeriesInstanceUID",
}
# How long a peer waits for our answer, about; the queue answers in milliseconds, or says that it is full.
_ACCEPT_SECONDS = 20.0
_NEGOTIATION_SECONDS = 10.0
_STOP_SECONDS = 10.0

Accept = Callable[[Arrival], "Future[Accepted]"]


class DicomNode:
    """Hands to `accept` what comes; files are written into `incoming`, from where they may be moved."""

    def __init__(self, settings: DicomSettings, accept: Accept, incoming: Path) -> None:
        self._settings = settings
        self._accept = accept
        self._incoming = incoming
        self._server: NodeServer | None = None
        self._stopping = False
        self._tls = server_context(settings)

    @property
    def port(self) -> int:
        """The port that the node listens on. Raises RuntimeError before it is started."""
        if self._server is None:
            raise RuntimeError("the node does not run")
        return int(self._server.server_address[1])

    def start(self) -> None:
        """Listen. Raises InvalidInputError when the address cannot be had."""
        settings = self._settings
        entity = ApplicationEntity(ae_title=settings.ae_title)
        entity.acse_timeout = _NEGOTIATION_SECONDS
        entity.network_timeout = settings.idle_seconds
        entity.maximum_pdu_size = PDU_BYTES
        entity.implementation_class_uid = IMPLEMENTATION_CLASS_UID
        entity.implementation_version_name = implementation_version()
        # Counted by `Access`, which leaves out those that are not open yet.
        entity.maximum_associations = 10_000
        try:
            self._server = NodeServer(
                entity,
                (settings.host, settings.port),
                supported_contexts(),
                [(evt.EVT_C_ECHO, lambda event: _SUCCESS), (evt.EVT_C_STORE, self._store)],
                Access(settings),
                self._incoming,
                settings.largest_file_bytes,
                settings.most_associations,
                self._tls,
            )
        except OSError as error:
            raise InvalidInputError(
                f"[dicom] host {settings.host}, port {settings.port}: cannot listen there ({error.strerror})"
            ) from error

    def stop(self) -> None:
        """Take no further association and image; wait for messages that are on their way, then end all."""
        if self._server is None:
            return
        self._stopping = True
        self._server.shutdown()
        deadline = time.monotonic() + _STOP_SECONDS
        open_still = [one for one in self._server.active_associations if isinstance(one, PeerAssociation)]
        while any(one.is_alive() and one.receiving.busy for one in open_still):
            if time.monotonic() > deadline:
                break
            time.sleep(0.05)
        for association in open_still:
            association.abort(block=False)
        for association in open_still:
            association.join(timeout=max(0.1, deadline - time.monotonic()))
        self._server = None

    def _store(self, event: evt.Event) -> int | Dataset:
        request: Any = event.request
        assert isinstance(request, C_STORE)
        received = request.DataSet
        try:
            if not isinstance(received, ReceivedFile):
                raise RefusedStoreError(NOT_UNDERSTOOD, "no data set")
            self._take(request, str(event.context.abstract_syntax), received)
        except RefusedStoreError as refusal:
            log.warning("DICOM: an image was refused: %s", refusal.comment)
            return _status(refusal)
        except Exception as error:
            log.error("DICOM: an image could not be taken (%s)", type(error).__name__)
            return _status(RefusedStoreError(NOT_UNDERSTOOD, "cannot be taken"))
        return _SUCCESS

    def _take(self, request: C_STORE, negotiated: str, received: ReceivedFile) -> None:
        if self._stopping:
            raise RefusedStoreError(OUT_OF_RESOURCES, "the node is being stopped")
        path = received.file()
        context = _identifiers(path)
        if not context["sop_class"] == str(request.AffectedSOPClassUID) == negotiated:
            raise RefusedStoreError(NOT_OF_ITS_CLASS, "SOP Class UIDs of command and data set differ")
        if context["sop_instance"] != str(request.AffectedSOPInstanceUID):
            raise RefusedStoreError(NOT_OF_ITS_CLASS, "SOP Instance UIDs of command and data set differ")
        arrival = Arrival(
            door="dicom",
            key=f"dicom {context['sop_instance']} {received.digest}",
            name=context["sop_instance"],
            content=path,
            context=context,
            explain=self._settings.explain,
        )
        try:
            accepted = self._accept(arrival).result(timeout=_ACCEPT_SECONDS)
        except FutureTimeoutError:
            raise RefusedStoreError(OUT_OF_RESOURCES, "storing it took too long; send it again") from None
        except (FedMedClipError, OSError) as error:
            # A queue that is full and a disk that is: both pass.
            log.warning("DICOM: %s was not taken: %s", arrival.name, error)
            raise RefusedStoreError(OUT_OF_RESOURCES, "busy; send it again later") from None
        if accepted.known:
            log.info("DICOM: %s had come before", arrival.name)
        else:
            log.info("DICOM: %s is taken", arrival.name)


def _identifiers(path: Path) -> dict[str, str]:
    """Return the UIDs that an answer needs. Raises RefusedStoreError for a data set without them."""
    try:
        with path.open("rb") as file:
            header = read_elements(file, tuple(_CONTEXT.values()))
            found = {
                name: raw_bytes(header, keyword).strip(b" \0").decode("ascii", "replace")
                for name, keyword in _CONTEXT.items()
            }
    except RefusedFileError as refusal:
        raise RefusedStoreError(NOT_UNDERSTOOD, refusal.reason[:64]) from None
    # What pydicom raises may quote the header.
    except Exception:
        raise RefusedStoreError(NOT_UNDERSTOOD, "the data set cannot be read") from None
    for name, value in found.items():
        if not (_UID.fullmatch(value) and len(value) <= 64):
            # Each is of type 1 in every image's IOD: an answer without them belongs to no study.
            raise RefusedStoreError(NOT_OF_ITS_CLASS, f"no usable {_CONTEXT[name]}")
    return found


def _status(refusal: RefusedStoreError) -> Dataset:
    status = Dataset()
    status.Status = refusal.status
    status.ErrorComment = refusal.comment
    return status
