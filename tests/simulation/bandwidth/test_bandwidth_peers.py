"""What puts other systems beside ours: it counts right, and does without what cannot be installed."""

import socket
import threading

from rich.console import Console

from benchmarks.peers.comparison import install
from benchmarks.wire.counting_proxy import CountingProxy
from benchmarks.wire.synthetic_features import write_features
from fedmedclip.simulation.federation.feature_pool import pool_of_file


def test_the_proxy_counts_every_byte_of_both_directions():
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer():
            connection, _ = server.accept()
            with connection:
                received = 0
                while received < 300_000:
                    received += len(connection.recv(1 << 16))
                connection.sendall(b"y" * 1234)

        thread = threading.Thread(target=answer)
        thread.start()
        with CountingProxy(server.getsockname()[1]) as proxy:
            with socket.create_connection(("127.0.0.1", proxy.port)) as client:
                client.sendall(b"x" * 300_000)
                answered = b"".join(iter(lambda: client.recv(1 << 16), b""))
            thread.join()
            assert (len(answered), proxy.to_target, proxy.from_target) == (1234, 300_000, 1234)


def test_a_peer_that_cannot_be_installed_is_left_out_with_a_reason(tmp_path):
    console = Console(record=True, width=200)
    assert install("missing", tmp_path, "--no-index", console) is None
    assert "missing is left out, it cannot be installed: ERROR" in console.export_text()


def test_synthetic_features_are_ones_the_benchmark_takes(tmp_path):
    path = tmp_path / "features.npz"
    write_features(path, size=32, classes=4, images=300, sites=3, global_images=50, seed=0)
    pool = pool_of_file(path)
    assert (pool.embedding_size, len(pool.site_names), len(pool.labels)) == (32, 3, 300)
    assert pool.global_test is not None
    write_features(tmp_path / "again.npz", size=32, classes=4, images=300, sites=3, global_images=50, seed=0)
    assert pool_of_file(tmp_path / "again.npz").digest == pool.digest
