"""What each codec makes of trained deltas: bytes, milliseconds, distance from the entropy limit.

    OMP_NUM_THREADS=1 python -m benchmarks.wire.codec_speed [--streams] [--embedding-size 512] [CODEC ...]

Prints a Markdown table; with `--streams` one of each entropy-coded stream beside its entropy instead. The
deltas are those of one site that trains for some rounds on generated embeddings (random arrays would not do:
they have no structure to find). Each codec gets them in turn with error feedback and memory, as in a
federation. Times are processor time, the least of all rounds.
"""

import argparse
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from benchmarks.wire.codec_streams import TABLE_HEAD, table_rows
from fedmedclip.edge_client.heads.heads import initial_private_head
from fedmedclip.edge_client.learning.settings import TrainingSettings
from fedmedclip.edge_client.learning.training import train_round
from fedmedclip.protocol.codecs import Codec, codec_named, decode_head, encode_head, order0_entropy_bytes
from fedmedclip.protocol.codecs.error_feedback import difference
from fedmedclip.protocol.heads.head import HeadSpecification, NamedArrays
from fedmedclip.protocol.heads.shared_heads import initial_shared_head, shared_head_specification

Floats = npt.NDArray[np.float32]

METHOD = "fedmedclip"
CLASSES, IMAGES, LATENT = 10, 600, 8
CODECS = (
    "lossless", "fp16", "int8", "int4", "int3", "int2", "sign", "topk:share=0.1", "topk:share=0.01",
    "lowrank:rank=8,bits=4", "lowrank", "lowrank:rank=2", "auto:bytes=2920", "auto:bytes=1460",
    "paper-fp16-zlib",
)  # fmt: skip


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("codecs", nargs="*", default=CODECS, metavar="CODEC")
    parser.add_argument("--embedding-size", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--streams", action="store_true", help="each stream beside its order-0 entropy")
    arguments = parser.parse_args()
    specification = shared_head_specification(METHOD, arguments.embedding_size)
    rounds = list(trained_rounds(arguments.embedding_size, arguments.rounds))
    if arguments.streams:
        print(TABLE_HEAD)
        for name in arguments.codecs:
            messages = [turn.encoded for turn in federation_turns(codec_named(name), rounds, specification)]
            print(table_rows(name, messages, specification), flush=True)
        return
    print("| codec | bytes | encode ms | decode ms | entropy limit, bytes | above it | left out |")
    print("|---|---|---|---|---|---|---|")
    for name in arguments.codecs:
        print(row(name, rounds, specification), flush=True)


@dataclass(frozen=True)
class Turn:
    """What a codec made of one round: bytes, seconds, and the share of energy that it left out."""

    encoded: bytes
    encode_seconds: float
    decode_seconds: float
    left_out: float


def row(name: str, rounds: list[tuple[NamedArrays, NamedArrays]], specification: HeadSpecification) -> str:
    """Return the codec's line of the table. "Left out" is the energy missing from a round's decoded delta."""
    turns = list(federation_turns(codec_named(name), rounds, specification))
    size = statistics.mean(len(turn.encoded) for turn in turns)
    limit = statistics.mean(order0_entropy_bytes(turn.encoded, specification) for turn in turns)
    encode, decode = min(turn.encode_seconds for turn in turns), min(turn.decode_seconds for turn in turns)
    left_out = statistics.mean(turn.left_out for turn in turns)
    return (
        f"| {name} | {size:,.0f} | {1000 * encode:.1f} | {1000 * decode:.1f} | {limit:,.0f} "
        f"| {100 * (size / limit - 1):.1f} % | {100 * left_out:.1f} % |"
    )


def federation_turns(
    codec: Codec, rounds: list[tuple[NamedArrays, NamedArrays]], specification: HeadSpecification
) -> Iterator[Turn]:
    """Yield what the codec makes of each round, with error feedback and its memory, as at a site."""
    memory = b""
    residual = {tensor.name: np.zeros(tensor.shape, np.float32) for tensor in specification.tensors}
    for head, delta in rounds:
        wanted = head if codec.whole_head else {key: delta[key] + residual[key] for key in delta}
        started = time.process_time()
        encoded = encode_head(codec, wanted, specification, memory)
        encoded_at = time.process_time()
        decoded = decode_head(encoded.data, specification)
        decoded_at = time.process_time()
        left = difference(wanted, decoded)
        yield Turn(encoded.data, encoded_at - started, decoded_at - encoded_at, energy(left) / energy(wanted))
        memory = encoded.memory
        residual = residual if codec.whole_head else left


def energy(arrays: NamedArrays) -> float:
    """Return the sum of squares of all values."""
    return float(sum(np.square(array, dtype=np.float64).sum() for array in arrays.values()))


def trained_rounds(embedding_size: int, rounds: int) -> Iterator[tuple[NamedArrays, NamedArrays]]:
    """Yield the head after each round of one site, and what the round changed."""
    embeddings, labels, captions = generated_site(embedding_size)
    shared = initial_shared_head(METHOD, embedding_size, 0)
    private = initial_private_head(METHOD, embedding_size, CLASSES, 0, "site")
    for number in range(1, rounds + 1):
        trained = train_round(
            METHOD, shared, private, embeddings, labels, captions, 30.0, TrainingSettings(),
            round_number=number, seed=number,
        )  # fmt: skip
        yield trained.shared, difference(trained.shared, shared)
        shared, private = trained.shared, trained.private


def generated_site(embedding_size: int) -> tuple[Floats, npt.NDArray[np.int64], Floats]:
    """Return unit embeddings (N, D), labels (N,) and class embeddings (C, D) that look like CLIP's.

    One direction that all share, classes that overlap in a few directions, and noise whose spectrum falls as
    a power of the rank.
    """
    generator = np.random.default_rng(0)
    basis = np.linalg.qr(generator.standard_normal((embedding_size, embedding_size)))[0].T
    centres = 0.5 * generator.standard_normal((CLASSES, LATENT)) / np.sqrt(LATENT)
    labels = generator.choice(CLASSES, IMAGES, p=generator.dirichlet(np.ones(CLASSES)))
    within = 0.35 * generator.standard_normal((IMAGES, LATENT)) / np.sqrt(LATENT)
    spectrum = np.arange(1, embedding_size - LATENT + 1) ** -0.8
    spectrum *= 0.6 / np.linalg.norm(spectrum)
    noise = generator.standard_normal((IMAGES, embedding_size - LATENT)) * spectrum
    common = unit(generator.standard_normal((1, embedding_size)))
    embeddings = common + (centres[labels] + within) @ basis[:LATENT] + noise @ basis[LATENT:]
    misreading = 1.5 * generator.standard_normal((CLASSES, embedding_size)) / np.sqrt(embedding_size)
    captions = centres @ basis[:LATENT] + misreading + 0.2 * common
    return unit(embeddings), labels.astype(np.int64), unit(captions)


def unit(rows: npt.NDArray[np.floating]) -> Floats:
    """Return rows at unit length."""
    lengths: npt.NDArray[np.floating] = np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows / lengths).astype(np.float32)


if __name__ == "__main__":
    main()
