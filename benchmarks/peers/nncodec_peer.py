"""NNCodec as a coder of deltas: runs in another process, in an environment of its own."""

import io
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import numpy as np

from benchmarks.peers.peer_environment import peer_environment
from fedmedclip.protocol.codecs.error_feedback import apply_delta, difference
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.heads.head import HeadSpecification, NamedArrays
from fedmedclip.protocol.heads.shared_heads import shared_head_specification
from fedmedclip.simulation.bandwidth.runs import CodecTrial, Run, play_codec
from fedmedclip.simulation.federation.coders import CodecMeasurements, Coded, Kept

# What the Plan message says where the payloads are not ours.
_NOT_OURS = "foreign"


class NNCodecCoder:
    """The `Coder` that NNCodec is in another process: deltas of both directions, with error feedback."""

    # Nobody is ever away here, so nobody needs the deltas before the newest.
    whole = True

    def __init__(self, python: Path, qp: int, folder: Path, specification: HeadSpecification) -> None:
        self._qp = qp
        self._specification = specification
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

    def encode_update(
        self, trained: NamedArrays, base: NamedArrays, kept: Kept, measurements: CodecMeasurements | None
    ) -> Coded:
        """See `Coder`; what counts in the mean is the head that the delta leads to."""
        wanted = difference(trained, base)
        if (residual := kept.residual) is not None:
            wanted = {name: wanted[name] + residual[name] for name in wanted}
        packed = io.BytesIO()
        np.savez(packed, allow_pickle=False, **wanted)
        bitstream, encode_ms = self._ask({"do": "encode", "qp": self._qp}, packed.getvalue())
        answer, decode_ms = self._ask({"do": "decode"}, bitstream)
        with np.load(io.BytesIO(answer)) as file:
            decoded = {name: file[name] for name in file}
        if measurements is not None:
            measurements.encode_ms.append(encode_ms)
            measurements.decode_ms.append(decode_ms)
            measurements.payload_bytes.append(len(bitstream))
            # An arithmetic coder with contexts: what it wrote is its limit.
            measurements.entropy_bytes.append(len(bitstream))
        head = apply_delta(base, decoded, self._specification)
        return Coded(bitstream, head, Kept(difference(wanted, decoded)))

    def encode_version(self, mean: NamedArrays, base: NamedArrays, kept: Kept) -> Coded:
        """See `Coder`; the mean is one of heads."""
        return self.encode_update(mean, base, kept, None)

    def close(self) -> None:
        """End the other process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=30)

    def _ask(self, request: dict[str, Any], data: bytes) -> tuple[bytes, float]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({**request, "size": len(data)}).encode() + b"\n" + data)
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> tuple[bytes, float]:
        assert self._process.stdout is not None
        answer = json.loads(self._process.stdout.readline())
        return self._process.stdout.read(answer["size"]), answer["milliseconds"]


def run_nncodec(
    trial: CodecTrial, python: Path, qp: int, out: Path, seed: int, on_round: Callable[[], None]
) -> Run:
    """Play all rounds with NNCodec at one quantisation parameter."""
    with TemporaryDirectory(dir=out, prefix="nncodec-", ignore_cleanup_errors=True) as folder:
        pool = trial.pool
        experiment = msgspec.structs.replace(
            trial.experiment, uplink_codec=_NOT_OURS, downlink_codec=_NOT_OURS
        )
        specification = shared_head_specification(
            experiment.method, pool.embedding_size, len(pool.class_embeddings)
        )
        coder = NNCodecCoder(python, qp, Path(folder), specification)
        try:
            theirs = CodecTrial(pool, experiment)
            return play_codec(theirs, f"nncodec {qp}", seed, Path(folder), on_round, coder)
        finally:
            coder.close()
