"""Reports on their way: to files, and to archives that take them, refuse them, or are not there."""

import io
import socket
import threading

import msgspec
import numpy as np
import pydicom
import pytest
from pynetdicom import AE, evt
from pynetdicom.transport import ThreadedAssociationServer

from fedmedclip.edge_client.serving.answer import Result
from fedmedclip.edge_client.serving.arrival import Arrival
from fedmedclip.edge_client.serving.dicom.door import DicomDoor, dicom_outlets
from fedmedclip.edge_client.serving.dicom.outlet import outlet_name
from fedmedclip.edge_client.serving.dicom.sending import send
from fedmedclip.edge_client.serving.dicom.settings import Destination, DicomSettings
from fedmedclip.edge_client.serving.dicom.tls import client_context
from fedmedclip.edge_client.serving.outlet import DeliveryError
from fedmedclip.protocol.errors import InvalidInputError
from tests.edge_client.images.dicom_files import EXPLICIT, IMPLICIT
from tests.edge_client.serving.dicom.certificates import write_certificate
from tests.edge_client.serving.dicom.examples import MemoryQueue, answer_of, image_file, started_node

REPORT, CAPTURE = "1.2.840.10008.5.1.4.1.1.88.33", "1.2.840.10008.5.1.4.1.1.7"
PIXELS = np.full((24, 32, 3), 90, np.uint8)


class Archive:
    """A real archive's way to answer; `statuses` are given one by one, then success."""

    def __init__(self, *statuses, classes=(REPORT, CAPTURE), syntax=EXPLICIT):
        self.statuses, self.stored = list(statuses), []
        entity = AE(ae_title="PACS")
        entity.require_called_aet = True
        for sop_class in classes:
            entity.add_supported_context(sop_class, syntax)
        handlers = [(evt.EVT_C_STORE, self._store)]
        self._server = entity.make_server(
            ("127.0.0.1", 0), evt_handlers=handlers, server_class=ThreadedAssociationServer
        )
        self.port = self._server.server_address[1]
        entity._servers.append(self._server)
        # `start_server` looks twice a second whether it shall end.
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def _store(self, event):
        self.stored.append(event.dataset)
        return self.statuses.pop(0) if self.statuses else 0

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._server.shutdown()


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "image.dcm"
    path.write_bytes(image_file())
    return path


def arrival(path, door="dicom"):
    return Arrival(door=door, key="k", name="1.2.826.0.1.3680043.8.498.1", content=path)


def destination(port, **changed):
    return Destination(**{"ae_title": "PACS", "host": "127.0.0.1", "port": port} | changed)


def prepared(settings, image, answer):
    """The outlets of a door, each with what it would deliver."""
    found = dicom_outlets(settings)
    return [(outlet, outlet.prepare(arrival(image), image, answer, PIXELS)) for outlet in found]


def test_files_and_archive_get_the_same_instances_once_and_again(tmp_path, image):
    answer = answer_of()
    with Archive(syntax=IMPLICIT) as archive:
        settings = DicomSettings(
            reports=str(tmp_path / "reports"),
            secondary_capture=True,
            destinations=[destination(archive.port)],
        )
        for _ in range(2):
            ways = prepared(settings, image, answer)
            for outlet, payload in ways:
                outlet.deliver(payload, answer)
    files = sorted((tmp_path / "reports").iterdir())
    written = [pydicom.dcmread(file) for file in files]
    assert [file.stem for file in files] == [one.SOPInstanceUID for one in written]
    assert {one.SOPClassUID for one in written} == {REPORT, CAPTURE}
    assert len(archive.stored) == 4
    assert {one.SOPInstanceUID for one in archive.stored} == {one.SOPInstanceUID for one in written}
    assert all(file.stat().st_mode & 0o077 == 0 for file in files)


def test_an_answer_that_is_made_again_has_the_report_of_the_second_one(image):
    [outlet] = dicom_outlets(DicomSettings(destinations=[destination(9)]))
    first = answer_of()
    again = msgspec.structs.replace(
        first, answered_at=first.answered_at + 1, results=[Result(outcome="unlike the training images")]
    )
    [old], [new] = (
        msgspec.msgpack.decode(outlet.prepare(arrival(image), image, answer, PIXELS))
        for answer in (first, again)
    )
    assert old[0] == new[0], "the same UIDs: one of both is delivered"
    assert b"unlike the training images" in new[1]
    assert b"unlike the training images" not in old[1]


def test_other_doors_and_what_was_not_read_have_no_report(image, tmp_path, caplog):
    [(files, _)] = prepared(DicomSettings(reports=str(tmp_path)), image, answer_of())
    assert files.prepare(arrival(image, "http"), image, answer_of(), PIXELS) is None
    unreadable = answer_of(Result(outcome="unreadable", reason="truncated"))
    assert files.prepare(arrival(image), image, unreadable, None) is None
    assert "1.2.826.0.1.3680043.8.498.1 has no report: truncated" in caplog.text


def test_a_folder_that_cannot_be_written_is_tried_again(image, tmp_path):
    (tmp_path / "file").touch()
    [(files, payload)] = prepared(DicomSettings(reports=str(tmp_path / "file")), image, answer_of())
    with pytest.raises(DeliveryError) as raised:
        files.deliver(payload, answer_of())
    assert not raised.value.permanent


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    image = tmp_path_factory.mktemp("report") / "image.dcm"
    image.write_bytes(image_file())
    [(_, payload)] = prepared(DicomSettings(destinations=[destination(9)]), image, answer_of())
    return msgspec.msgpack.decode(payload)[0][1]


@pytest.mark.parametrize("status", [0x0000, 0xB000, 0xB006, 0xB007, 0x0107, 0x0116])
def test_success_and_warnings_are_deliveries(report, status):
    with Archive(status) as archive:
        send([report], destination(archive.port), "US", None)
    assert len(archive.stored) == 1


@pytest.mark.parametrize(
    ("status", "permanent"),
    [(0xA700, False), (0xA7FF, False), (0x0110, False), (0xA900, True), (0xC123, True), (0x0122, True)],
)
def test_a_refusal_is_for_good_where_the_archive_says_so(report, status, permanent):
    with Archive(status) as archive, pytest.raises(DeliveryError, match=f"0x{status:04X}") as raised:
        send([report], destination(archive.port), "US", None)
    assert raised.value.permanent is permanent


def test_what_an_archive_does_not_take_is_put_aside_and_the_rest_arrives(report, image):
    settings = DicomSettings(secondary_capture=True, destinations=[destination(9)])
    [(_, payload)] = prepared(settings, image, answer_of())
    files = [content for _, content in msgspec.msgpack.decode(payload)]
    with Archive(classes=[REPORT]) as archive, pytest.raises(DeliveryError) as raised:
        send(files, destination(archive.port), "US", None)
    assert raised.value.permanent
    assert "Secondary Capture" in str(raised.value)
    assert [one.SOPClassUID for one in archive.stored] == [REPORT]
    with Archive(classes=["1.2.840.10008.1.1"]) as archive, pytest.raises(DeliveryError) as raised:
        send([report], destination(archive.port), "US", None)
    assert raised.value.permanent


def test_an_archive_that_is_away_or_knows_us_not_is_tried_again(report):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        free = taken.getsockname()[1]
    with Archive() as archive:
        for there in (destination(free), destination(archive.port, ae_title="OTHER")):
            with pytest.raises(DeliveryError) as raised:
                send([report], there, "US", None)
            assert not raised.value.permanent
            assert there.ae_title in str(raised.value)
    with pytest.raises(DeliveryError, match="cannot be reached"):
        send([report], destination(104, host="no-such-host.invalid"), "US", None)


def test_tls_both_ways_and_no_one_without_a_certificate(tmp_path, image):
    """Our own node is the archive here: it takes secondary captures."""
    certificate, key = write_certificate(tmp_path, "node")
    mine, my_key = write_certificate(tmp_path, "client")
    queue = MemoryQueue(tmp_path)
    node = started_node(
        queue, ae_title="PACS", certificate_file=certificate, key_file=key, client_ca_file=mine
    )
    try:
        there = destination(node.port, tls=True, ca_file=certificate, certificate_file=mine, key_file=my_key)
        settings = DicomSettings(secondary_capture=True, destinations=[there])
        [(_, payload)] = prepared(settings, image, answer_of())
        capture = msgspec.msgpack.decode(payload)[1][1]
        send([capture], there, "US", client_context(there))
        [arrived] = queue.arrivals.values()
        assert arrived.name == pydicom.dcmread(io.BytesIO(capture)).SOPInstanceUID
        strangers = [
            destination(node.port),
            destination(node.port, tls=True, ca_file=certificate),
            destination(node.port, tls=True, ca_file=mine, certificate_file=mine, key_file=my_key),
        ]
        for stranger in strangers:
            with pytest.raises(DeliveryError) as raised:
                send([capture], stranger, "US", client_context(stranger))
            assert not raised.value.permanent
        assert len(queue.arrivals) == 1
    finally:
        node.stop()


def test_a_half_open_tls_connection_holds_up_nobody(tmp_path):
    certificate, key = write_certificate(tmp_path, "node")
    node = started_node(MemoryQueue(tmp_path), ae_title="PACS", certificate_file=certificate, key_file=key)
    try:
        with socket.create_connection(("127.0.0.1", node.port)):
            there = destination(node.port, tls=True, ca_file=certificate)
            entity = AE(ae_title="US")
            entity.add_requested_context("1.2.840.10008.1.1")
            tls = client_context(there), "127.0.0.1"
            association = entity.associate("127.0.0.1", node.port, ae_title="PACS", tls_args=tls)
            assert association.send_c_echo().Status == 0
            association.release()
    finally:
        node.stop()


def test_the_door_says_where_it_is_and_that_a_port_is_taken(tmp_path):
    queue = MemoryQueue(tmp_path)
    door = DicomDoor(DicomSettings(port=0), queue.accept, queue.incoming)
    door.start()
    try:
        assert door.described() == f"DICOM FEDMEDCLIP on 127.0.0.1:{door.port}, for 0 peers"
        second = DicomDoor(DicomSettings(port=door.port), queue.accept, queue.incoming)
        with pytest.raises(InvalidInputError, match="cannot listen there"):
            second.start()
    finally:
        door.stop()
    door.stop()


def test_names_of_outlets_are_their_own_and_may_be_a_part_of_a_files_name():
    there = [destination(104), destination(105), destination(104, ae_title="A/../B ?")]
    names = [outlet_name(one) for one in there]
    assert len(set(names)) == 3
    assert all(name.replace("-", "").replace("_", "").isalnum() for name in names)
