"""NNCodec as a coder of deltas: runs in another process, in an environment of its own."""

import io
import json
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.peers.peer_environment import peer_environment
from fedmedclip.protocol.codecs.error_feedback import apply_delta, difference
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.heads.head import HeadSpecification, NamedArrays
from fedmedclip.protocol.heads.shared_heads import shared_head_specification
from fedmedclip.simulation.bandwidth.foreign_federation import ForeignFederation
from fedmedclip.simulation.bandwidth.learner import CodecMeasurements
from fedmedclip.simulation.bandwidth.runs import Experiment, Run, plan_of, play

# What the Plan message says where the payloads are not ours.
_NOT_OURS = "foreign"


class NNCodecCoder:
    """The `Coder` that NNCodec is in another process: deltas of both directions, with error feedback."""

    def __init__(self, python: Path, qp: int, folder: Path, specification: HeadSpecification) -> None:
        self._qp = qp
        self._specification = specification
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
            env=peer_environment(),
        )
        try:
            self._answer()
        except (ValueError, KeyError) as error:
            raise InvalidInputError(f"NNCodec does not start; {folder / 'nncodec.log'} says why") from error

    def encode(self, sender: str, head: NamedArrays, base: NamedArrays, measured: bool) -> bytes:
        """See `Coder`."""
        wanted = difference(head, base)
        if sender in self._residuals:
            residual = self._residuals[sender]
            wanted = {name: wanted[name] + residual[name] for name in wanted}
        packed = io.BytesIO()
        np.savez(packed, allow_pickle=False, **wanted)
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
        return apply_delta(base, self._decoded(payload)[0], self._specification)

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


def run_nncodec(experiment: Experiment, python: Path, qp: int, seed: int, out: Path) -> Run:
    """Play all rounds with NNCodec at one quantisation parameter."""
    with TemporaryDirectory(dir=out, prefix="nncodec-", ignore_cleanup_errors=True) as folder:
        specification = shared_head_specification(
            experiment.method, experiment.pool.embedding_size, len(experiment.pool.class_embeddings)
        )
        coder = NNCodecCoder(python, qp, Path(folder), specification)
        plan = plan_of(experiment, _NOT_OURS, _NOT_OURS, seed)
        try:
            federation = ForeignFederation(plan, experiment.pool, Path(folder), coder)
            return play(federation, experiment, f"nncodec {qp}", seed, lambda: None)
        finally:
            coder.close()
