"""The listening socket: TLS outside the loop that accepts, and a bound on what is open before it is known."""

import logging
import socket
import ssl
import threading
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

from pynetdicom import evt
from pynetdicom.ae import ApplicationEntity
from pynetdicom.presentation import PresentationContext
from pynetdicom.transport import AddressInformation, RequestHandler, ThreadedAssociationServer

from fedmedclip.edge_client.serving.dicom.access import Access
from fedmedclip.edge_client.serving.dicom.association import PeerAssociation, PeerSocket

log = logging.getLogger("fedmedclip.serve")

# Connections beside the associations that may be open: not yet told who they are, or being rejected. Of these
# one address has only so many, so that it cannot keep all others out.
_STRANGERS, _OF_ONE_ADDRESS = 32, 8
_HANDSHAKE_SECONDS = 10.0
_POLL_SECONDS = 0.1


class NodeServer(ThreadedAssociationServer):
    """Listens at `address` from its making on. `incoming` and `largest` are those of `PeerAssociation`.

    Raises OSError when the address cannot be had.
    """

    daemon_threads = True
    request_queue_size = _STRANGERS

    def __init__(
        self,
        entity: ApplicationEntity,
        address: tuple[str, int],
        contexts: list[PresentationContext],
        handlers: list[evt.EventHandlerType],
        access: Access,
        incoming: Path,
        largest: int,
        most_associations: int,
        tls: ssl.SSLContext | None,
    ) -> None:
        self.access, self.incoming, self.largest = access, incoming, largest
        self._most_associations = most_associations
        self._tls = tls
        self._handshakes: Counter[str] = Counter()
        self._lock = threading.Lock()
        super().__init__(
            entity, address, entity.ae_title, contexts, evt_handlers=handlers, request_handler=_Connection
        )
        # pynetdicom takes it out again when the server is shut down.
        entity._servers.append(self)
        threading.Thread(
            target=self.serve_forever, args=(_POLL_SECONDS,), name="dicom-node", daemon=True
        ).start()

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Close a connection at once where there are too many, in all or of its address."""
        with self._lock:
            there = Counter(self._handshakes)
        there.update(
            one.requestor.address_info.address
            for one in self.active_associations
            if one.requestor.address_info is not None
        )
        return (
            there.total() < self._most_associations + _STRANGERS
            and there[client_address[0]] < self._most_associations + _OF_ONE_ADDRESS
        )

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Make an association of a connection, in a thread of its own."""
        with self._lock:
            self._handshakes[client_address[0]] += 1
        try:
            if self._tls is not None:
                request.settimeout(_HANDSHAKE_SECONDS)
                request = self._tls.wrap_socket(request, server_side=True)
            super().finish_request(request, client_address)
        finally:
            with self._lock:
                self._handshakes[client_address[0]] -= 1
                self._handshakes += Counter()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say that a connection did not come to be an association; the traceback is nobody's business."""
        log.info("DICOM: a connection from %s ended before it was an association", client_address[0])


class _Connection(RequestHandler):
    server: NodeServer
    request: socket.socket

    def _create_association(self) -> PeerAssociation:
        server = self.server
        association = PeerAssociation(self.ae, server.access, server.incoming, server.largest)
        association._server = server
        # pynetdicom finds its acceptors by this name.
        association.name = f"AcceptorThread@{datetime.now():%Y%m%d%H%M%S}"
        association.set_socket(PeerSocket(association, client_socket=self.request))
        acceptor = association.acceptor
        acceptor.maximum_length = self.ae.maximum_pdu_size
        acceptor.ae_title = server.ae_title
        acceptor.address_info = self.local
        acceptor.implementation_class_uid = self.ae.implementation_class_uid
        acceptor.implementation_version_name = self.ae.implementation_version_name
        acceptor.supported_contexts = server.contexts
        association.requestor.address_info = AddressInformation.from_tuple(self.client_address)
        for event, bound in server._handlers.items():
            if event.is_intervention and bound:
                association.bind(event, *bound)
        return association
