"""NNCodec and Flower beside ours: the same FAM, sites, seeds and rounds, bytes and accuracy in one table.

    python -m benchmarks.peers --data DIR --bundle B --out DIR [--rounds 30] [--seeds 0,1,2]

from the repository's root, in an environment with the extra [bench]. Each peer gets a virtual environment of
its own below --out, which sees this one's PyTorch; or name an interpreter that has it with --nncodec-python,
--flower-python. A peer that cannot be installed is left out, and the last line of pip says why.

NNCodec (ISO/IEC 15938-17) codes the deltas of both directions, with error feedback, in our envelopes. Flower
sends whole float32 heads over gRPC, as it does by default; its bytes are counted at the socket, so they hold
HTTP/2 framing, which ours, counted as MQTT payloads, do not (an MQTT header has about 30 bytes).
"""

import argparse
import io
import json
import os
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import numpy as np
from rich.console import Console

from benchmarks.counting_proxy import CountingProxy
from edge_client.feature_store import FeatureStore
from edge_client.site_features import LabelledFeatures
from protocol.bundle import open_bundle
from protocol.error_feedback import apply_delta, difference
from protocol.errors import FedMedClipError, InvalidInputError
from protocol.head import NamedArrays
from protocol.shared_heads import initial_shared_head
from simulation.bandwidth.feature_pool import pool_of_file, pool_of_folder
from simulation.bandwidth.foreign_federation import ForeignFederation
from simulation.bandwidth.learner import CodecMeasurements
from simulation.bandwidth.results import Row, make_rows, target_accuracy
from simulation.bandwidth.runs import (
    Experiment,
    Round,
    Run,
    RunFile,
    accuracy,
    codec_choice,
    plan_of,
    play,
    run_federation,
)
from simulation.bandwidth.table import print_rows
from simulation.bandwidth.thin_link import parse_link

ROOT = Path(__file__).resolve().parents[1]
# What the Plan message says where the payloads are not ours.
_NOT_OURS = "foreign"


def main() -> None:
    """Run everything and write `peers.json` and `peers.md` into --out."""
    options = _options()
    console = Console()
    try:
        run_peers(options, console)
    except FedMedClipError as error:
        sys.exit(f"peers: {error}")


def run_peers(options: argparse.Namespace, console: Console) -> None:
    """Play ours, then each peer that is there, skipping runs that --out holds already."""
    options.out.mkdir(parents=True, exist_ok=True)
    experiment = _experiment(options)
    run_file = RunFile(options.out / "runs.jsonl", experiment)
    seeds = [int(seed) for seed in options.seeds.split(",")]
    labels: list[str] = []

    def have(label: str, seed: int) -> bool:
        if label not in labels:
            labels.append(label)
        if (label, seed) in run_file.runs:
            return True
        console.print(f"{label}, seed {seed}", highlight=False)
        return False

    for choice in map(codec_choice, options.codecs.split(",")):
        for seed in seeds:
            if not have(choice.label, seed):
                run_file.add(run_federation(experiment, choice, seed, options.out, lambda: None))
    nncodec = _interpreter("nncodec", options.nncodec_python, options, console)
    for qp in map(int, options.qp.split(",")) if nncodec else ():
        for seed in seeds:
            if not have(f"nncodec {qp}", seed):
                run_file.add(_run_nncodec(experiment, nncodec, qp, seed, options.out))
    flower = _interpreter("flwr", options.flower_python, options, console)
    for seed in seeds if flower else ():
        if not have("flower", seed):
            run_file.add(_run_flower(experiment, flower, seed, options.out))
    runs = {label: [run_file.runs[label, seed] for seed in seeds] for label in labels}
    _write(options, experiment, runs, console)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path)
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--features", type=Path, help="instead of --data and --bundle, as for the benchmark")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--method", default="fedmedclip")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--codecs", default="lossless,paper-fp16-zlib,lowrank")
    parser.add_argument("--qp", default="-32,-24,-20", help="NNCodec's quantisation parameters")
    parser.add_argument("--nncodec-python", type=Path)
    parser.add_argument("--flower-python", type=Path)
    parser.add_argument("--pip-options", default="", help="for the peers' installation")
    return parser.parse_args()


def _experiment(options: argparse.Namespace) -> Experiment:
    if options.features is not None:
        pool = pool_of_file(options.features)
    elif options.data is not None and options.bundle is not None:
        with FeatureStore(options.out / "features.db") as store:
            pool = pool_of_folder(options.data, open_bundle(options.bundle), store)
    else:
        raise InvalidInputError("give --data with --bundle, or --features")
    return Experiment(pool, options.method, options.rounds, None, 0.0, None)


def _interpreter(
    package: str, given: Path | None, options: argparse.Namespace, console: Console
) -> Path | None:
    """Return a Python that has the package, made when needed; None, and a line why, when there is none."""
    if given is not None:
        return given
    folder = options.out / f"environment-{package}"
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        console.print(f"installing {package} into {folder}", highlight=False)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        # Its own packages come first; PyTorch, which both need, is not downloaded again.
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        ours = folder / "lib" / version / "site-packages" / "ours.pth"
        ours.write_text(sysconfig.get_path("purelib") + "\n")
        pip = [
            str(python),
            "-m",
            "pip",
            "install",
            "--disable-pip-version-check",
            *options.pip_options.split(),
        ]
        done = subprocess.run([*pip, package], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            why = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
            console.print(f"{package} is left out, it cannot be installed: {' '.join(why)}", highlight=False)
            return None
        (folder / "complete").touch()
    return python


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "FLWR_TELEMETRY_ENABLED": "0"}


class NNCodecCoder:
    """The `Coder` that NNCodec is in another process: deltas of both directions, with error feedback."""

    def __init__(self, python: Path, qp: int, folder: Path) -> None:
        self._qp = qp
        self._residuals: dict[str, NamedArrays] = {}
        self.measurements = CodecMeasurements()
        worker = Path(__file__).with_name("nncodec_worker.py")
        # It leaves its bitstreams in the working folder.
        self._process = subprocess.Popen(
            [str(python.absolute()), str(worker)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=(folder / "nncodec.log").open("wb"),
            cwd=folder,
            env=_environment(),
        )
        try:
            self._answer()
        except (ValueError, KeyError) as error:
            raise InvalidInputError(f"NNCodec does not start; {folder / 'nncodec.log'} says why") from error

    def encode(self, sender: str, head: NamedArrays, base: NamedArrays, measured: bool) -> bytes:
        """See `Coder`."""
        wanted = difference(head, base)
        if sender in self._residuals:
            wanted = apply_delta(wanted, self._residuals[sender])
        packed = io.BytesIO()
        np.savez(packed, **wanted)
        bitstream, encode_ms = self._ask({"do": "encode", "qp": self._qp}, packed.getvalue())
        decoded, decode_ms = self._decoded(bitstream)
        self._residuals[sender] = difference(wanted, decoded)
        if measured:
            self.measurements.encode_ms.append(encode_ms)
            self.measurements.decode_ms.append(decode_ms)
            self.measurements.payload_bytes.append(len(bitstream))
            # An arithmetic coder with contexts: what it wrote is its limit.
            self.measurements.entropy_bytes.append(len(bitstream))
        return bitstream

    def decode(self, payload: bytes, base: NamedArrays) -> NamedArrays:
        """See `Coder`."""
        return apply_delta(base, self._decoded(payload)[0])

    def close(self) -> None:
        """End the other process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=30)

    def _decoded(self, bitstream: bytes) -> tuple[NamedArrays, float]:
        packed, milliseconds = self._ask({"do": "decode"}, bitstream)
        with np.load(io.BytesIO(packed)) as file:
            return {name: file[name] for name in file}, milliseconds

    def _ask(self, request: dict[str, Any], data: bytes) -> tuple[bytes, float]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({**request, "size": len(data)}).encode() + b"\n" + data)
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> tuple[bytes, float]:
        assert self._process.stdout is not None
        answer = json.loads(self._process.stdout.readline())
        return self._process.stdout.read(answer["size"]), answer["milliseconds"]


def _run_nncodec(experiment: Experiment, python: Path, qp: int, seed: int, out: Path) -> Run:
    with TemporaryDirectory(dir=out, prefix="nncodec-", ignore_cleanup_errors=True) as folder:
        coder = NNCodecCoder(python, qp, Path(folder))
        plan = plan_of(experiment, _NOT_OURS, _NOT_OURS, seed)
        try:
            federation = ForeignFederation(plan, experiment.pool, Path(folder), coder)
            return play(federation, experiment, f"nncodec {qp}", seed, lambda: None)
        finally:
            coder.close()


def _run_flower(experiment: Experiment, python: Path, seed: int, out: Path) -> Run:
    """Run server and clients as processes, the clients through the counting proxy."""
    pool, sites = experiment.pool, experiment.deal(seed)
    rounds, worker = experiment.rounds, str(Path(__file__).with_name("flower_worker.py"))
    test = LabelledFeatures(pool.embeddings[sites.test], pool.labels[sites.test])
    port = _free_port()
    with TemporaryDirectory(dir=out, prefix="flower-") as work, CountingProxy(port) as proxy:
        folder = Path(work)
        _write_flower_inputs(experiment, seed, folder)
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
                    accuracy(experiment.method, head, pool, test),
                    None
                    if pool.global_test is None
                    else accuracy(experiment.method, head, pool, pool.global_test),
                )
            )
    whole = float(4 * sum(array.size for array in head.values()))
    sums = ({"TCP": proxy.to_target}, {"TCP": proxy.from_target})
    return Run("flower", seed, entries, len(sites.sites), *sums, whole, whole, 0.0, 0.0, "")


def _write_flower_inputs(experiment: Experiment, seed: int, folder: Path) -> None:
    pool = experiment.pool
    np.savez(folder / "head.npz", **initial_shared_head(experiment.method, pool.embedding_size, seed))
    about = {"method": experiment.method, "seed": seed, "logit_scale": pool.logit_scale}
    for site in experiment.deal(seed).sites:
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
            [str(part) for part in command], stdout=file, stderr=file, env=_environment()
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


def _write(
    options: argparse.Namespace, experiment: Experiment, runs: dict[str, list[Run]], console: Console
) -> None:
    target, source = target_accuracy(runs, None)
    rows = make_rows(runs, parse_link("64kbit/s", "600ms"), target)
    content = {"settings": experiment.description(), "rows": rows}
    encoded = msgspec.json.format(msgspec.json.encode(content), indent=2)
    (options.out / "peers.json").write_bytes(encoded + b"\n")
    (options.out / "peers.md").write_text(_markdown(rows))
    print_rows(console, rows, "64kbit/s, 600ms", f"{100 * target:.1f} % ({source})")
    console.print(f"{options.out}: peers.json, peers.md", highlight=False)


def _markdown(rows: list[Row]) -> str:
    lines = [
        "| codec | bytes up | bytes down | accuracy % | rounds to target | encode + decode ms |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        measured = row.encode_ms + row.decode_ms
        lines.append(
            f"| {row.codec} | {row.uplink_bytes_per_round:,.0f} | {row.downlink_bytes_per_round:,.0f} "
            f"| {100 * row.accuracy:.1f} ± {100 * row.accuracy_std:.1f} | {row.rounds_to_target or '-'} "
            f"| {f'{measured:.1f}' if measured else '-'} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
