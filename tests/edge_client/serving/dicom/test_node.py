"""The node against real clients: what it takes, what it refuses, and what it says of it."""

import io
import logging
import subprocess
import threading
import time

import pydicom
import pytest

from benchmarks.serving.pdus import data_pdu, store_command
from fedmedclip.edge_client.serving.dicom.settings import Peer
from fedmedclip.edge_client.serving.dicom.sop_classes import image_classes, transfer_syntaxes
from fedmedclip.edge_client.serving.queue import QueueFullError
from tests.edge_client.images.dicom_files import BIG_ENDIAN, DEFLATED, EXPLICIT, IMPLICIT
from tests.edge_client.serving.dicom.clients import (
    VERIFICATION,
    associate,
    dcmtk,
    echoes,
    established,
    eventually,
    is_closed,
    stored,
    struct_of,
)
from tests.edge_client.serving.dicom.examples import (
    MR,
    PLANTED,
    image_file,
    started_node,
)


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT, DEFLATED, BIG_ENDIAN])
def test_an_image_is_taken_in_every_native_syntax(node, queue, syntax):
    assert stored(node.port, image_file(syntax)).Status == 0
    (arrival,) = queue.arrivals.values()
    assert arrival.name == "1.2.826.0.1.3680043.8.498.1"
    assert arrival.context == {
        "sop_class": MR,
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


def test_every_syntax_that_is_read_is_accepted_and_no_document(shared):
    node, _ = shared
    syntaxes = transfer_syntaxes()
    refused = (
        "1.2.840.10008.5.1.4.1.1.88.33",
        "1.2.840.10008.5.1.4.1.1.104.1",
        "1.2.840.10008.5.1.4.1.1.66.4",
    )
    asked = [(MR, syntax) for syntax in syntaxes] + [(one, EXPLICIT) for one in refused]
    asked.append((MR, "1.2.840.10008.1.2.4.102"))
    association = associate(node.port, asked)
    accepted = [one.transfer_syntax[0] for one in association.accepted_contexts]
    association.release()
    assert sorted(accepted) == sorted(syntaxes)


def test_each_syntax_and_class_is_named_once():
    assert len(set(transfer_syntaxes())) == len(transfer_syntaxes()) >= 14
    classes = image_classes()
    assert len(set(classes.values())) == len(classes)
    others = ("SR", "PDF", "Segmentation", "Video", "Waveform")
    assert not any(part in name for name in classes for part in others)


def test_dcmtk_echoes_and_stores(node, queue, tmp_path):
    where = ["-aec", "FEDMEDCLIP", "127.0.0.1", str(node.port)]
    subprocess.run([dcmtk("echoscu"), *where], check=True, capture_output=True)
    for number in range(3):
        (tmp_path / f"{number}.dcm").write_bytes(image_file(number=number))
    files = [str(path) for path in sorted(tmp_path.glob("*.dcm"))]
    subprocess.run([dcmtk("storescu"), *where, *files], check=True, capture_output=True)
    assert sorted(arrival.name[-1] for arrival in queue.arrivals.values()) == ["0", "1", "2"]
