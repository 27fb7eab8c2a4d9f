"""One connection to the node, whatever its peer sends, leaves half done, or never sends.

pynetdicom trusts its peers in a few places: a PDU may claim any length and take any time, a message may have
any length in memory, and what no state expects ends a thread with a traceback. Here each of these ends the
connection, and nothing else.
"""

import logging
import socket
import time
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, cast

from pydicom.uid import UID
from pynetdicom.acse import ACSE
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import C_STORE_RQ, DIMSEMessage
from pynetdicom.dimse_primitives import DimseServiceType
from pynetdicom.dsutils import create_file_meta, encode_file_meta
from pynetdicom.fsm import StateMachine
from pynetdicom.pdu_primitives import A_P_ABORT, P_DATA
from pynetdicom.transport import AssociationSocket

from fedmedclip.edge_client.serving.dicom.access import Access
from fedmedclip.edge_client.serving.dicom.identifiers import IMPLEMENTATION_CLASS_UID, implementation_version
from fedmedclip.edge_client.serving.dicom.received_file import ReceivedFile

if TYPE_CHECKING:
    from pynetdicom.ae import ApplicationEntity

log = logging.getLogger("fedmedclip.serve")

# What we tell peers that a PDU may have; longer ones only open an association with many contexts.
PDU_BYTES = 128 * 1024
_LARGEST_PDU = 1024 * 1024
_LARGEST_COMMAND = 64 * 1024
# The least that a sender has to keep up, once a message has taken a minute.
_GRACE_SECONDS, _SLOWEST_BYTES_PER_SECOND = 60.0, 2000.0
_READ_AT_ONCE = 1 << 16


class PeerAssociation(Association):
    """An association that a peer opens; `incoming` is where what it stores is written."""

    def __init__(self, entity: "ApplicationEntity", access: Access, incoming: Path, largest: int) -> None:
        super().__init__(entity, "acceptor")
        self.acse = _Gate(self, access)
        self.receiving = _Receiving(self, incoming, largest)
        self.dimse = self.receiving
        self.dul.state_machine = _StateMachine(self.dul)
        self.dul.daemon = True

    def run(self) -> None:
        """Serve the peer until one of both ends the association, or it breaks."""
        try:
            super().run()
        except Exception as error:
            # What it says may quote the peer.
            log.info("DICOM: an association broke (%s)", type(error).__name__)
        finally:
            self.dul.kill_dul()
            self.dul.join(timeout=1.0)
            if self.dul.socket is not None:
                self.dul.socket.close()
            self.receiving.discard()

    def _serve_request(self, msg: DimseServiceType, context_id: int) -> None:
        try:
            super()._serve_request(msg, context_id)
        finally:
            # Also of a request that is passed over, since it lacks something or is of no service.
            _discard_data_set(msg)


class PeerSocket(AssociationSocket):
    """The connection: a PDU has at most a megabyte and comes within the time that a silent peer has."""

    def recv(self, nr_bytes: int) -> bytearray:
        """Return so many bytes, fewer at the end of the connection. Raises OSError, TimeoutError."""
        if nr_bytes > _LARGEST_PDU:
            raise OSError("a PDU is too long")
        association = self.assoc
        limit = association.network_timeout if association.is_established else association.acse_timeout
        deadline = time.monotonic() + (limit or 1.0)
        connection = cast(socket.socket, self.socket)
        content = bytearray()
        while len(content) < nr_bytes:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError("a PDU takes too long")
            connection.settimeout(left)
            part = connection.recv(min(nr_bytes - len(content), _READ_AT_ONCE))
            if not part:
                break
            content += part
        connection.settimeout(limit)
        return content


class _Gate(ACSE):
    """Who may open an association: asked first, and what goes wrong here opens none."""

    def __init__(self, association: PeerAssociation, access: Access) -> None:
        super().__init__(association)
        self._access = access

    def negotiate_association(self) -> None:
        requestor = self.assoc.requestor
        request = requestor.primitive
        assert request is not None
        rejection = self._access.rejection(
            calling=request.calling_ae_title,
            called=request.called_ae_title,
            host=requestor.address_info.address if requestor.address_info else "",
            open_now=sum(other.is_established for other in self.assoc.ae.active_associations),
        )
        if rejection is None:
            super().negotiate_association()
            return
        log.warning("DICOM: an association was rejected: %s", rejection.reason)
        self.send_reject(rejection.result, rejection.source, rejection.diagnostic)
        self.assoc.kill()


class _StateMachine(StateMachine):
    def do_action(self, event: str) -> None:
        try:
            super().do_action(event)
        except Exception as error:
            log.info("DICOM: a peer broke the protocol (%s)", type(error).__name__)
            self.dul.kill_dul()
            self.current_state = "Sta1"
        if self.current_state == "Sta1" and self.dul.assoc.requestor.primitive is None:
            # The connection is gone before a request came, for which the association would wait its time.
            self.dul.to_user_queue.put(cast(A_P_ABORT, None))


class _Receiving(DIMSEServiceProvider):
    """Messages as they come, PDU by PDU; the data set of a C-STORE goes to disk, others may have none."""

    def __init__(self, association: PeerAssociation, incoming: Path, largest: int) -> None:
        super().__init__(association)
        self._incoming = incoming
        self._largest = largest
        self._received: ReceivedFile | None = None
        self._since = 0.0
        self._ended = False

    @property
    def busy(self) -> bool:
        """Whether a message is on its way in, or waits."""
        return self.message is not None or not self.msg_queue.empty()

    def receive_primitive(self, primitive: P_DATA) -> None:
        try:
            if self.message is None:
                self._begin()
            message, received = self.message, self._received
            super().receive_primitive(primitive)
            if self.message is not None and message is not None and received is not None:
                self._check(message, received)
        except Exception as error:
            log.info("DICOM: a message was not understood (%s)", type(error).__name__)
            self.discard()
            # As after a PDU that is none: the association is aborted.
            self.dul.event_queue.put("Evt19")

    def discard(self) -> None:
        """Drop the message that is not whole yet, and take no further one."""
        self._ended = True
        self.message = None
        if self._received is not None:
            self._received.discard()
        for _, waiting in list(self.msg_queue.queue):
            _discard_data_set(waiting)

    def _begin(self) -> None:
        # Nobody negotiates several operations at once with this node; one may have overtaken the reactor.
        if self._ended or self.msg_queue.qsize() > 1:
            raise ValueError("a message too many")
        message = DIMSEMessage()

        def head() -> bytes:
            if not isinstance(message, C_STORE_RQ) or message.context_id is None:
                raise ValueError("a data set without a C-STORE")
            context = self.assoc._accepted_cx[message.context_id]
            meta = create_file_meta(
                sop_class_uid=message.command_set.AffectedSOPClassUID,
                sop_instance_uid=message.command_set.AffectedSOPInstanceUID,
                transfer_syntax=context.transfer_syntax[0],
                implementation_uid=UID(IMPLEMENTATION_CLASS_UID),
                implementation_version=implementation_version(),
            )
            return b"\0" * 128 + b"DICM" + encode_file_meta(meta)

        self._received = ReceivedFile(self._incoming, self._largest, head)
        message.data_set = cast(BytesIO, self._received)
        self.message = message
        self._since = time.monotonic()

    def _check(self, message: DIMSEMessage, received: ReceivedFile) -> None:
        if message.encoded_command_set.tell() > _LARGEST_COMMAND:
            raise ValueError("a command is too long")
        allowed = _GRACE_SECONDS + received.size / _SLOWEST_BYTES_PER_SECOND
        if time.monotonic() - self._since > allowed:
            raise ValueError("a message takes too long")


def _discard_data_set(message: object) -> None:
    if isinstance(data_set := getattr(message, "DataSet", None), ReceivedFile):
        data_set.discard()
