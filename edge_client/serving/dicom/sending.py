"""Files to an archive: a C-STORE SCU that says whether what failed may be tried again."""

import io
import socket
import ssl

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom.ae import ApplicationEntity
from pynetdicom.association import Association

from fedmedclip.edge_client.serving.dicom import quiet as quiet
from fedmedclip.edge_client.serving.dicom.identifiers import IMPLEMENTATION_CLASS_UID, implementation_version
from fedmedclip.edge_client.serving.dicom.settings import Destination
from fedmedclip.edge_client.serving.outlet import DeliveryError

_CONNECT_SECONDS, _ANSWER_SECONDS = 10.0, 60.0
# Statuses with which an instance is stored, with a remark (PS3.4 table GG.4-1, PS3.7 annex C).
_WARNINGS = (0x0001, 0x0107, 0x0116)
_NOT_SUPPORTED, _NOT_AUTHORISED = 0x0122, 0x0124


def send(
    files: list[bytes], destination: Destination, calling_ae_title: str, tls: ssl.SSLContext | None
) -> None:
    """Store all files (PS3.10) at a destination, by one association.

    Raises DeliveryError; it is permanent when the archive took all others and refuses one for good.
    """
    data_sets = [pydicom.dcmread(io.BytesIO(file)) for file in files]
    entity = ApplicationEntity(ae_title=calling_ae_title)
    entity.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    entity.implementation_version_name = implementation_version()
    entity.connection_timeout = _CONNECT_SECONDS
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = _ANSWER_SECONDS
    for sop_class in dict.fromkeys(data_set.SOPClassUID for data_set in data_sets):
        entity.add_requested_context(sop_class, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
    try:
        association = entity.associate(
            _address_of(destination),
            destination.port,
            ae_title=destination.ae_title,
            tls_args=None if tls is None else (tls, destination.host),
        )
    except (OSError, RuntimeError, ValueError) as error:
        raise DeliveryError(f"{_name(destination)} cannot be reached ({type(error).__name__})") from None
    if not association.is_established:
        raise _not_established(association, destination)
    try:
        refused = [line for data_set in data_sets if (line := _store(association, data_set, destination))]
    finally:
        if association.is_established:
            association.release()
    if refused:
        raise DeliveryError(refused[0], permanent=True)


def _store(association: Association, data_set: Dataset, destination: Destination) -> str | None:
    """Store one; return a line when it is refused for good. Raises DeliveryError when it may go later."""
    try:
        status = association.send_c_store(data_set)
    except ValueError:
        return f"{_name(destination)} does not take {data_set.SOPClassUID.name}"
    except RuntimeError:
        raise DeliveryError(f"{_name(destination)} ended the association") from None
    if "Status" not in status:
        raise DeliveryError(f"{_name(destination)} did not answer")
    code = int(status.Status)
    if code == 0 or code in _WARNINGS or 0xB000 <= code <= 0xBFFF:
        return None
    line = f"{_name(destination)} refused {data_set.SOPClassUID.name} with status 0x{code:04X}"
    if code in (_NOT_SUPPORTED, _NOT_AUTHORISED) or 0xA900 <= code <= 0xA9FF or 0xC000 <= code <= 0xCFFF:
        return line
    raise DeliveryError(line)


def _not_established(association: Association, destination: Destination) -> DeliveryError:
    if association.is_rejected:
        answer = association.acceptor.primitive
        reason = "" if answer is None else f": {answer.reason_str}"
        return DeliveryError(
            f"{_name(destination)} rejected the association{reason}; does it know our AE title?"
        )
    if association.acceptor.primitive is not None and not association.accepted_contexts:
        return DeliveryError(f"{_name(destination)} takes none of our SOP classes", permanent=True)
    return DeliveryError(f"{_name(destination)} cannot be reached, or does not speak DICOM")


def _address_of(destination: Destination) -> str:
    """Look a name up first: pynetdicom would end with what the resolver raises in a thread of its own."""
    return str(socket.getaddrinfo(destination.host, destination.port, type=socket.SOCK_STREAM)[0][4][0])


def _name(destination: Destination) -> str:
    return f"{destination.ae_title.strip()} at {destination.host}:{destination.port}"
