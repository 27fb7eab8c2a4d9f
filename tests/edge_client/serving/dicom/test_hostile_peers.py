"""The node against peers that break off, break the protocol, or stay silent: it goes on."""

import contextlib
import random
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.serving.pdus import association_request, data_pdu, pdu, store_command
from tests.edge_client.serving.dicom.clients import (
    connection,
    echoes,
    established,
    eventually,
    is_closed,
    is_over,
    struct_of,
)
from tests.edge_client.serving.dicom.examples import (
    PLANTED,
    MemoryQueue,
    image_file,
    started_node,
)


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


def test_requests_that_are_none_leave_no_data_sets(shared):
    """pynetdicom passes over a request that lacks a parameter; the peer may go on for ever with them."""
    node, queue = shared
    verification = store_command(sop_class="1.2.840.10008.1.1")
    for nothing in (store_command(whole=False), verification):
        with established(node.port) as peer:
            for _ in range(3):
                peer.sendall(nothing + data_pdu(b"x" * 1000, last=True))
                time.sleep(0.02)
            assert eventually(lambda: not list(queue.incoming.iterdir())), "while the peer is there"
    assert eventually(lambda: not list(queue.incoming.iterdir()))


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


def mutated_session(seed):
    """The request of an association, and what follows: two stores, in part or in disorder, bytes changed."""
    draw = random.Random(seed)
    content = image_file()
    content = content[content.index(b"\x08\0\x16\0") :]
    command = store_command(instance="1.2.826.0.1.3680043.8.498.1")
    parts = [command, data_pdu(content[:900]), data_pdu(content[900:], last=True)]
    parts += [command, data_pdu(content, last=True), pdu(5, bytes(4))]
    if draw.random() < 0.3:
        draw.shuffle(parts)
    if draw.random() < 0.4:
        del parts[draw.randrange(len(parts))]
    told = bytearray(b"".join(parts))
    for _ in range(draw.choice([0, 1, 2, 5, 40])):
        at, size = draw.randrange(len(told)), draw.randrange(1, 50)
        match draw.choice(["change", "change", "remove", "insert"]):
            case "change":
                told[at] = draw.randrange(256)
            case "remove":
                del told[at : at + size]
            case "insert":
                told[at:at] = draw.randbytes(size)
    return association_request(), bytes(told)


@pytest.mark.slow
def test_mutated_sessions_leave_no_file_and_no_thread(tmp_path, caplog):
    """Twelve at a time."""
    queue = MemoryQueue(tmp_path)
    node = started_node(queue, idle_seconds=1, largest_file_bytes=1 << 20, most_associations=40)

    def session(seed):
        request, rest = mutated_session(seed)
        with contextlib.suppress(OSError), connection(node.port) as peer:
            peer.sendall(request)
            peer.recv(4096)
            peer.sendall(rest)
            peer.settimeout(0.2)
            while peer.recv(4096):
                pass

    try:
        with ThreadPoolExecutor(12) as pool:
            list(pool.map(session, range(3000)))
        assert echoes(node.port)
        assert len(queue.arrivals) > 100
        assert eventually(lambda: not list(queue.incoming.iterdir()))
        threads = threading.enumerate
        assert eventually(lambda: not [one for one in threads() if "AcceptorThread" in one.name], 20)
    finally:
        node.stop()
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("fedmedclip")]
    assert ours
    assert not [line for line in ours if any(word in line for word in PLANTED)]


def test_no_thread_is_left_by_those_who_left(shared):
    node, _ = shared
    for _ in range(3):
        connection(node.port).close()
    assert eventually(lambda: not [one for one in threading.enumerate() if "AcceptorThread" in one.name])


def test_one_address_cannot_keep_all_others_out(queue):
    node = started_node(queue, most_associations=2)
    crowd = [connection(node.port) for _ in range(40)]
    try:
        assert eventually(lambda: sum(is_over(peer) for peer in crowd) >= 30)
        other = socket.create_connection(("127.0.0.1", node.port), source_address=("127.0.0.2", 0))
        with other:
            other.settimeout(5)
            other.sendall(association_request())
            assert other.recv(4096)[:1] == b"\2"
    finally:
        for peer in crowd:
            peer.close()
        node.stop()
