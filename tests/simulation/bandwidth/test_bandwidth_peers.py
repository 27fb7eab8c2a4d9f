"""What puts other systems beside ours: it counts right, and does without what cannot be installed."""

import socket
import threading

import pytest
from rich.console import Console

from benchmarks.peers.comparison import install
from benchmarks.wire.codec_loss import losses_of, runs_of
from benchmarks.wire.counting_proxy import CountingProxy
from benchmarks.wire.hard_features import configuration, write_hard_features
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


@pytest.mark.slow
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


def test_hard_features_follow_from_size_and_number_alone(tmp_path):
    wanted = configuration(64, 12)
    write_hard_features(tmp_path / "first.npz", wanted)
    write_hard_features(tmp_path / "again.npz", configuration(64, 12))
    pool = pool_of_file(tmp_path / "first.npz")
    assert pool.digest == pool_of_file(tmp_path / "again.npz").digest
    assert (pool.embedding_size, len(pool.class_embeddings), len(pool.site_names)) == (64, 3, 2)
    assert len(pool.labels) == 2 * wanted.images_per_site
    write_hard_features(tmp_path / "other.npz", configuration(64, 13))
    assert pool_of_file(tmp_path / "other.npz").digest != pool.digest
    assert [number for number in range(6) if configuration(256, number).held_out] == [2, 5]


def test_the_loss_of_a_codec_is_measured_once_and_read_again(tmp_path):
    console = Console(record=True, width=200)
    wanted = configuration(64, 12)
    runs = runs_of(wanted, ["lossless", "int8"], [0, 1], 1, tmp_path, console)
    at_sites, on_global = losses_of(runs)["int8"]
    assert at_sites.low is not None
    assert on_global.low is not None
    assert abs(on_global.mean) < 0.05
    assert runs_of(wanted, ["lossless", "int8"], [0, 1], 1, tmp_path, console) == runs
    assert "4 of 4 runs are done already" in console.export_text()
