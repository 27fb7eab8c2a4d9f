"""The node against a real client, and against bytes that none would send."""

import io
import logging
import shutil
import socket
import subprocess
import threading
import time

import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pynetdicom import AE

from benchmarks.serving.pdus import association_request, data_pdu, pdu, store_command
from fedmedclip.edge_client.serving.dicom.settings import Peer
from fedmedclip.edge_client.serving.dicom.sop_classes import image_classes, transfer_syntaxes
from fedmedclip.edge_client.serving.queue import QueueFullError
from tests.conftest import missing
from tests.edge_client.images.dicom_files import BIG_ENDIAN, DEFLATED, EXPLICIT, IMPLICIT
from tests.edge_client.serving.dicom import examples
from tests.edge_client.serving.dicom.examples import (
    PLANTED,
    MemoryQueue,
    image_file,
    started_node,
)

VERIFICATION = "1.2.840.10008.1.1"


@pytest.fixture
def queue(tmp_path):
    return MemoryQueue(tmp_path)


@pytest.fixture
def node(queue):
    node = started_node(queue)
    yield node
    node.stop()


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A node that bears everything, with its queue."""
    queue = MemoryQueue(tmp_path_factory.mktemp("node"))
    node = started_node(queue, idle_seconds=1, largest_file_bytes=1 << 20)
    yield node, queue
    node.stop()


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


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, DEFLATED, BIG_ENDIAN])
def test_an_image_is_taken_in_every_native_syntax(node, queue, syntax):
    assert stored(node.port, image_file(syntax)).Status == 0
    (arrival,) = queue.arrivals.values()
    assert arrival.name == "1.2.826.0.1.3680043.8.498.1"
    assert arrival.context == {
        "sop_class": examples.MR,
        "sop_instance": arrival.name,
        "study": "1.2.826.0.1.3680043.8.498.77",
        "series": "1.2.826.0.1.3680043.8.498.77.1",
    }
    kept = pydicom.dcmread(io.BytesIO(queue.contents()[0]))
    assert kept.file_meta.TransferSyntaxUID == syntax
    assert kept.PixelData == pydicom.dcmread(io.BytesIO(image_file(syntax))).PixelData
    assert not list(queue.incoming.iterdir())


def test_the_same_again_is_known_and_another_content_is_not(node, queue):
    for _ in range(2):
        assert stored(node.port, image_file()).Status == 0
    assert len(queue.arrivals) == 1
    assert stored(node.port, image_file(StudyID="S2")).Status == 0
    keys = [key.split() for key in queue.arrivals]
    assert [key[:2] for key in keys] == [["dicom", "1.2.826.0.1.3680043.8.498.1"]] * 2
    assert all(len(key[2]) == 64 for key in keys)


def test_a_full_queue_says_out_of_resources_and_keeps_nothing(node, queue):
    queue.fault = QueueFullError("too much waits")
    status = stored(node.port, image_file())
    assert (status.Status, status.ErrorComment) == (0xA700, "busy; send it again later")
    assert not list(queue.incoming.iterdir())
    queue.fault = None
    assert stored(node.port, image_file()).Status == 0


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"StudyInstanceUID": None}, 0xA900),
        ({"StudyInstanceUID": "PLANTED^Zyxwvut"}, 0xA900),
        ({"SeriesInstanceUID": ""}, 0xA900),
    ],
)
def test_an_image_that_belongs_to_no_study_is_refused(node, queue, changed, status):
    answer = stored(node.port, image_file(**changed))
    assert answer.Status == status
    assert "UID" in answer.ErrorComment
    assert not any(word in answer.ErrorComment for word in PLANTED)
    assert not queue.arrivals


def test_what_is_too_large_is_refused_and_leaves_nothing(shared):
    node, queue = shared
    status = stored(node.port, image_file(ImageComments=("UT", "x" * 1_100_000)))
    assert (status.Status, status.ErrorComment) == (0xC000, "larger than this node takes")
    assert not list(queue.incoming.iterdir())


def test_a_full_disk_is_out_of_resources(queue, node, monkeypatch):
    """A write that fails as on a full disk, which a test cannot fill."""
    from fedmedclip.edge_client.serving.dicom import received_file

    def full(file, part):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(received_file, "_write_all", full)
    status = stored(node.port, image_file())
    assert (status.Status, status.ErrorComment) == (0xA700, "the disk is full")
    assert not list(queue.incoming.iterdir())


def test_strangers_are_rejected_and_peers_are_not(queue):
    peers = [Peer("CT1"), Peer("CT2", host="192.0.2.7"), Peer("CT3", host="localhost")]
    node = started_node(queue, peers=peers, most_associations=1)
    try:
        assert [echoes(node.port, calling) for calling in ("CT1", "CT2", "CT3", "CT4")] == [
            True,
            False,
            True,
            False,
        ]
        wrong = associate(node.port, [(VERIFICATION, EXPLICIT)], called="OTHER", calling="CT1")
        assert wrong.is_rejected
        held = associate(node.port, [(VERIFICATION, EXPLICIT)], calling="CT1")
        assert not echoes(node.port, "CT1"), "one association is all that may be open"
        held.release()
        assert eventually(lambda: echoes(node.port, "CT1"))
    finally:
        node.stop()


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


def established(port):
    peer = connection(port)
    peer.sendall(association_request())
    assert peer.recv(4096)[:1] == b"\2", "an A-ASSOCIATE-AC"
    return peer


def test_a_store_that_breaks_off_leaves_nothing(shared):
    node, queue = shared
    for end in (b"", pdu(7, b"\0\0\0\0"), pdu(4, b"\0\0\0\1\1", length=60_000)):
        with established(node.port) as peer:
            peer.sendall(store_command() + data_pdu(b"x" * 5000))
            assert eventually(lambda: list(queue.incoming.iterdir()))
            peer.sendall(end)
        assert eventually(lambda: not list(queue.incoming.iterdir()))
    assert echoes(node.port)


@pytest.mark.parametrize(
    "told",
    [
        pdu(1, length=0xFFFFFFFF),
        pdu(4, length=0xFFFFFFFF),
        pdu(4, b"\0\0\0\4\1\3abc"),
        data_pdu(b"\xff" * 100, command=True, last=True),
        data_pdu(b"\0" * 100, last=True),
        pdu(2, b"\0" * 68),
        pdu(6, b"\0\0\0\0"),
        pdu(9),
    ],
)
def test_a_peer_that_breaks_the_protocol_is_cut_off(shared, told):
    node, _ = shared
    with established(node.port) as peer:
        peer.sendall(told)
        assert is_closed(peer)
    assert echoes(node.port)


def test_garbage_for_a_data_set_is_not_understood_and_the_association_goes_on(shared):
    node, queue = shared
    with established(node.port) as peer:
        for content in (b"\xde\xad\xbe\xef" * 10, b"\x08\0\x05\0CS\xff\xff" + b"PLANTED"):
            peer.sendall(store_command() + data_pdu(content, last=True))
            answer = peer.recv(4096)
            assert answer[:1] == b"\4"
            assert any(struct_of(code) in answer for code in (0xC000, 0xA900))
    assert not queue.arrivals or all(key.startswith("dicom 1.2.826") for key in queue.arrivals)


def struct_of(code):
    """The element Status with this value, as in a command set."""
    return b"\0\0\0\x09\x02\0\0\0" + code.to_bytes(2, "little")


def test_silent_peers_are_let_go(shared):
    node, _ = shared
    started = time.monotonic()
    peers = [established(node.port), connection(node.port)]
    peers[0].sendall(store_command()[:7])
    assert is_closed(peers[0])
    assert time.monotonic() - started < 4
    assert echoes(node.port), "while one is half open"
    peers[1].close()


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    told=st.lists(
        st.one_of(
            st.binary(max_size=40),
            st.builds(pdu, st.integers(0, 8), st.binary(max_size=90)),
            st.just(association_request()),
            st.just(store_command()),
            st.builds(data_pdu, st.binary(max_size=60), last=st.booleans(), command=st.booleans()),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_hostile_bytes_end_their_own_connection_only(shared, told):
    node, queue = shared
    with connection(node.port) as peer:
        try:
            for part in told:
                peer.sendall(part)
        except OSError:
            pass
    assert echoes(node.port)
    assert eventually(lambda: not list(queue.incoming.iterdir()))


def test_no_thread_is_left_by_those_who_left(shared):
    node, _ = shared
    for _ in range(3):
        connection(node.port).close()
    assert eventually(lambda: not [one for one in threading.enumerate() if "AcceptorThread" in one.name])


def test_nothing_of_a_header_is_logged(node, queue, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    stored(node.port, image_file())
    stored(node.port, image_file(StudyInstanceUID=None))
    queue.fault = QueueFullError("too much waits")
    stored(node.port, image_file(number=2))
    with established(node.port) as peer:
        peer.sendall(store_command(instance="PLANTED^Zyxwvut") + data_pdu(b"4711-SECRET", last=True))
        peer.recv(4096)
        peer.sendall(data_pdu(b"PLANTED" * 9, command=True, last=True))
        is_closed(peer)
    out, err = capfd.readouterr()
    # What the client of these tests says is its own.
    mine = [record for record in caplog.records if not record.name.startswith("pynetdicom")]
    assert any("1.2.826.0.1.3680043.8.498.1 is taken" in record.getMessage() for record in mine)
    written = out + err + "\n".join(record.getMessage() for record in mine)
    assert not [word for word in PLANTED if word in written]


def test_stop_lets_a_store_end_and_takes_no_further_one(queue):
    node = started_node(queue)
    content = data_pdu(b"x" * 1000)
    with established(node.port) as peer:
        peer.sendall(store_command() + content)
        assert eventually(lambda: list(queue.incoming.iterdir()))
        stopping = threading.Thread(target=node.stop)
        stopping.start()
        time.sleep(0.2)
        peer.sendall(data_pdu(b"x", last=True))
        assert struct_of(0xA700) in peer.recv(4096)
        stopping.join(5)
        assert not stopping.is_alive()
    node.stop()


def test_each_syntax_and_class_is_named_once():
    assert len(set(transfer_syntaxes())) == len(transfer_syntaxes()) >= 14
    classes = image_classes()
    assert len(set(classes.values())) == len(classes)
    others = ("SR", "PDF", "Segmentation", "Video", "Waveform")
    assert not any(part in name for name in classes for part in others)


def dcmtk(name):
    if (path := shutil.which(name)) is None:
        missing(f"no {name}: apt-get install dcmtk")
    return path


def test_dcmtk_echoes_and_stores(node, queue, tmp_path):
    where = ["-aec", "FEDMEDCLIP", "127.0.0.1", str(node.port)]
    subprocess.run([dcmtk("echoscu"), *where], check=True, capture_output=True)
    for number in range(3):
        (tmp_path / f"{number}.dcm").write_bytes(image_file(number=number))
    files = [str(path) for path in sorted(tmp_path.glob("*.dcm"))]
    subprocess.run([dcmtk("storescu"), *where, *files], check=True, capture_output=True)
    assert sorted(arrival.name[-1] for arrival in queue.arrivals.values()) == ["0", "1", "2"]
