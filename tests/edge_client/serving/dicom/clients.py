"""Clients of the node: a library's, and a bare connection for what no library would send."""

import io
import shutil
import socket
import time

import pydicom
from pynetdicom import AE

from benchmarks.serving.pdus import association_request
from tests.conftest import missing
from tests.edge_client.images.dicom_files import EXPLICIT

VERIFICATION = "1.2.840.10008.1.1"


def associate(port, contexts, called="FEDMEDCLIP", calling="MODALITY"):
    entity = AE(ae_title=calling)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 10
    for abstract, syntax in contexts:
        entity.add_requested_context(abstract, syntax)
    return entity.associate("127.0.0.1", port, ae_title=called)


def stored(port, content, **changed):
    """Send one file and return the status of the response."""
    data_set = pydicom.dcmread(io.BytesIO(content), force=True)
    syntax = data_set.file_meta.TransferSyntaxUID
    data_set.file_meta.MediaStorageSOPClassUID = data_set.SOPClassUID
    association = associate(port, [(data_set.SOPClassUID, syntax)], **changed)
    assert association.is_established
    try:
        return association.send_c_store(data_set)
    finally:
        association.release()


def echoes(port, calling="MODALITY"):
    association = associate(port, [(VERIFICATION, EXPLICIT)], calling=calling)
    if not association.is_established:
        return False
    status = association.send_c_echo()
    association.release()
    return status.get("Status") == 0


def eventually(holds, seconds=5.0):
    deadline = time.monotonic() + seconds
    while not (found := holds()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def connection(port):
    peer = socket.create_connection(("127.0.0.1", port))
    peer.settimeout(5)
    return peer


def is_closed(peer):
    """Whether the node ends a connection, with or without an A-ABORT before."""
    try:
        while peer.recv(4096):
            pass
    except ConnectionResetError:
        pass
    return True


def is_over(peer):
    """Whether the node has closed a connection, without waiting for it."""
    peer.setblocking(False)
    try:
        return peer.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def established(port):
    peer = connection(port)
    peer.sendall(association_request())
    assert peer.recv(4096)[:1] == b"\2", "an A-ASSOCIATE-AC"
    return peer


def struct_of(code):
    """The element Status with this value, as in a command set."""
    return b"\0\0\0\x09\x02\0\0\0" + code.to_bytes(2, "little")


def dcmtk(name):
    if (path := shutil.which(name)) is None:
        missing(f"no {name}: apt-get install dcmtk")
    return path
