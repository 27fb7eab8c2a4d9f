"""Flower's own server and clients around the same local training, counted at the socket."""

import json
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.peers.peer_environment import peer_environment
from benchmarks.wire.counting_proxy import CountingProxy
from fedmedclip.edge_client.features.labelled import LabelledFeatures
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.heads.shared_heads import initial_shared_head
from fedmedclip.simulation.bandwidth.runs import CodecTrial, Round, Run
from fedmedclip.simulation.federation.evaluation import Examiner


def run_flower(trial: CodecTrial, python: Path, out: Path, seed: int, on_round: Callable[[], None]) -> Run:
    """Run server and clients as processes, the clients through the counting proxy."""
    pool, experiment = trial.pool, trial.experiment
    sites = experiment.dealing.deal(pool, seed)
    rounds, worker = experiment.rounds, str(Path(__file__).with_name("flower_worker.py"))
    test = LabelledFeatures(pool.embeddings[sites.test], pool.labels[sites.test])
    examiner = Examiner(pool, experiment.method)
    port = _free_port()
    with TemporaryDirectory(dir=out, prefix="flower-") as work, CountingProxy(port) as proxy:
        folder = Path(work)
        _write_flower_inputs(trial, seed, folder)
        log = out / "flower.log"
        with _process([python, worker, "server", port, len(sites.sites), rounds, folder], log) as server:
            _wait_for_port(port, server, log)
            clients = [[python, worker, "client", proxy.port, folder, site.name] for site in sites.sites]
            with _processes(clients, log):
                if server.wait(timeout=3600) != 0:
                    raise InvalidInputError(f"Flower's server failed; {log} says why")
        entries = []
        for number in range(1, rounds + 1):
            with np.load(folder / f"round-{number}.npz") as file:
                head = {name: file[name] for name in file}
            entries.append(
                Round(
                    len(sites.sites),
                    # What a round takes is only known as a mean: gRPC has no border between rounds.
                    proxy.to_target // rounds,
                    proxy.from_target // rounds,
                    2 * len(sites.sites),
                    examiner.shared_accuracy(head, test),
                    examiner.on_global_test(head),
                )
            )
            on_round()
    whole = float(4 * sum(array.size for array in head.values()))
    sums = ({"TCP": proxy.to_target}, {"TCP": proxy.from_target})
    return Run("flower", seed, entries, len(sites.sites), *sums, whole, whole, 0.0, 0.0, "")


def _write_flower_inputs(trial: CodecTrial, seed: int, folder: Path) -> None:
    pool, experiment = trial.pool, trial.experiment
    head = initial_shared_head(experiment.method, pool.embedding_size, seed, len(pool.class_embeddings))
    np.savez(folder / "head.npz", allow_pickle=False, **head)
    about = {"method": experiment.method, "seed": seed, "logit_scale": pool.logit_scale}
    for site in experiment.dealing.deal(pool, seed).sites:
        (folder / f"{site.name}.json").write_text(json.dumps(about))
        np.savez(
            folder / f"{site.name}.npz",
            embeddings=pool.embeddings[site.train],
            labels=pool.labels[site.train],
            class_embeddings=pool.class_embeddings,
        )


@contextmanager
def _process(command: list[Any], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("ab") as file:
        process = subprocess.Popen(
            [str(part) for part in command], stdout=file, stderr=file, env=peer_environment()
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait(timeout=30)


@contextmanager
def _processes(commands: list[list[Any]], log: Path) -> Iterator[None]:
    if not commands:
        yield
        return
    with _process(commands[0], log), _processes(commands[1:], log):
        yield


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _wait_for_port(port: int, server: "subprocess.Popen[bytes]", log: Path) -> None:
    """A client's failed first tries would be counted."""
    for _ in range(600):
        if server.poll() is not None:
            break
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except ConnectionRefusedError:
            time.sleep(0.1)
    raise InvalidInputError(f"Flower's server does not start; {log} says why")
