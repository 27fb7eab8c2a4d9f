"""The measurements of `benchmarks/methods/round.py`, each to be run in a process of its own.

    python -m benchmarks.methods.round_worker '{"kind": "cached", "model": "ViT-B-32", ...}'

prints what was measured as one line of JSON.
"""

import sys
import time
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import torch
from torch.nn.functional import cross_entropy, normalize

from benchmarks.measured_process import peak_megabytes
from fedmedclip.edge_client.heads.heads import initial_private_head
from fedmedclip.edge_client.learning.settings import TrainingSettings
from fedmedclip.edge_client.learning.training import train_round
from fedmedclip.export.model_source import LOCAL_PREFIX
from fedmedclip.export.quiet import quiet
from fedmedclip.export.torchvision_operators import declare_missing_operators
from fedmedclip.protocol import topics
from fedmedclip.protocol.codecs import delta_codec_named
from fedmedclip.protocol.codecs.error_feedback import compress, difference
from fedmedclip.protocol.envelope import NO_IDENTITY, seal
from fedmedclip.protocol.heads.head import NamedArrays
from fedmedclip.protocol.heads.shared_heads import initial_shared_head, shared_head_specification
from fedmedclip.protocol.link.link import Link
from fedmedclip.protocol.link.settings import SMALLEST_COMMON_LIMIT, LinkSettings
from fedmedclip.protocol.messages import Update
from fedmedclip.protocol.objects import blocks_of, refer_to
from fedmedclip.protocol.signature import new_signing_key
from fedmedclip.simulation.processes.brokers import MosquittoBroker

Seconds = npt.NDArray[np.float64]

METHOD, CLASSES, BATCH = "fedmedclip", 4, 32
REPEATS = 5
SENT_AT_MOST = 64 << 20


class Task(msgspec.Struct, frozen=True):
    """What to measure; see the options of `benchmarks/methods/round.py`."""

    kind: str
    model: str
    images: int
    batches: int
    threads: int
    codec: str


class Measured(msgspec.Struct, frozen=True):
    """Seconds of a round and its parts, payload bytes sent, and the process's peak resident memory.

    `processor_seconds` are those of all cores in computing; unlike the others they hardly depend on what
    else the machine does.
    """

    seconds: float
    processor_seconds: float
    compute_seconds: float
    encode_seconds: float
    send_seconds: float
    bytes: int
    peak_memory_mb: float
    embedding_size: int


def main() -> None:
    """Measure the task in the first argument."""
    task = msgspec.json.decode(sys.argv[1], type=Task)
    torch.set_num_threads(task.threads)
    torch.manual_seed(0)
    size = embedding_size(task.model)
    if task.kind == "cached":
        training, encode, payload = heads_round(task, size)
    elif task.kind == "re-encoding":
        heads, encode, payload = heads_round(task, size)
        network, side, _ = load_clip(task.model)
        training = heads + encoder_epoch(task, network.eval(), side)
    else:
        network, side, tokenizer = load_clip(task.model)
        training = fine_tuning_epoch(task, network.train(), side, tokenizer)
        started = time.perf_counter()
        payload = b"".join(weight.detach().numpy().tobytes() for weight in network.state_dict().values())
        encode = time.perf_counter() - started
    send, sent = send_update(payload, task.images)
    compute, processor = training.tolist()
    peak = round(peak_megabytes(), 1)
    found = Measured(compute + encode + send, processor, compute, encode, send, sent, peak, size)
    print(msgspec.json.encode(found).decode())


def load_clip(model: str) -> tuple[Any, int, Any]:
    """Return the network, the side of its images in pixels, and its tokenizer."""
    with quiet():
        declare_missing_operators()
        import open_clip

        network = open_clip.create_model(model)
        tokenizer = open_clip.get_tokenizer(model)
    side = network.visual.image_size
    return network, side if isinstance(side, int) else side[0], tokenizer


def embedding_size(model: str) -> int:
    """Return D without loading the model: at a site no encoder is in the process that trains."""
    if model.startswith(LOCAL_PREFIX):
        folder = Path(model.removeprefix(LOCAL_PREFIX))
        configuration = msgspec.json.decode((folder / "open_clip_config.json").read_bytes())
        return int(configuration["model_cfg"]["embed_dim"])
    with quiet():
        declare_missing_operators()
        import open_clip

        return int(open_clip.get_model_config(model)["embed_dim"])


def clocks() -> Seconds:
    """Return what a clock on the wall says, and the processor time of this process so far."""
    return np.array([time.perf_counter(), time.process_time()])


def heads_round(task: Task, size: int) -> tuple[Seconds, float, bytes]:
    """Return the medians of training a round and of encoding its update, in seconds, and the update.

    One thread, as a site's configuration has it by default: more only wait for each other here. The first
    round, in which PyTorch loads what it needs, does not count.
    """
    draw = np.random.default_rng(0)
    embeddings = draw.normal(size=(task.images, size)).astype(np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    captions = embeddings[:CLASSES].copy()
    labels = draw.integers(0, CLASSES, task.images)
    specification = shared_head_specification(METHOD, size)
    codec = delta_codec_named(task.codec)
    shared: NamedArrays = initial_shared_head(METHOD, size, 0)
    private = initial_private_head(METHOD, size, CLASSES, 0, "site")
    residual, memory = None, b""
    training, encoding = [], []
    for number in range(1, REPEATS + 2):
        started = clocks()
        trained = train_round(
            METHOD, shared, private, embeddings, labels, captions, 50.0,
            TrainingSettings(), round_number=number, seed=number,
        )  # fmt: skip
        between = clocks()
        made = compress(codec, difference(trained.shared, shared), residual, memory, specification)
        encoding.append(float(clocks()[0] - between[0]))
        training.append(between - started)
        shared, private, residual, memory = trained.shared, trained.private, made.residual, made.memory
    return np.median(training[1:], axis=0), median(encoding[1:]), made.encoded


def encoder_epoch(task: Task, network: Any, side: int) -> Seconds:
    """Return the seconds for running the image encoder over all images."""

    @torch.no_grad()
    def encode(images: torch.Tensor) -> None:
        network.encode_image(images)

    return scaled(task, lambda: encode(torch.randn(BATCH, 3, side, side)))


def fine_tuning_epoch(task: Task, network: Any, side: int, tokenizer: Any) -> Seconds:
    """Return the seconds for one epoch of CLIP's own symmetric loss with all weights in training."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-6)
    captions = tokenizer([f"a picture of finding {number % CLASSES}." for number in range(BATCH)])
    pairs = torch.arange(BATCH)

    def step() -> None:
        images = normalize(network.encode_image(torch.randn(BATCH, 3, side, side)), dim=1)
        texts = normalize(network.encode_text(captions), dim=1)
        cosines = network.logit_scale.exp() * images @ texts.T
        loss = (cross_entropy(cosines, pairs) + cross_entropy(cosines.T, pairs)) / 2
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return scaled(task, step)


def scaled(task: Task, run_batch: Callable[[], None]) -> Seconds:
    """Return the median seconds of a batch, after one that does not count, scaled to all images."""
    run_batch()
    times = []
    for _ in range(task.batches):
        started = clocks()
        run_batch()
        times.append(clocks() - started)
    whole: Seconds = np.median(times, axis=0) * task.images / BATCH
    return whole


def send_update(payload: bytes, samples: int) -> tuple[float, int]:
    """Return the seconds until the broker has acknowledged the update, and its bytes with envelopes.

    Of a large payload only the first part is sent, and both figures are scaled.
    """
    part = payload[:SENT_AT_MOST]
    topic, key = topics.up("round", "site"), new_signing_key()
    with (
        MosquittoBroker() as broker,
        Link(LinkSettings(host=broker.host, port=broker.port), client_id="round") as link,
    ):
        # Until this is acknowledged, the time would be that of connecting.
        publish_all(link, topic, [b""])
        started = time.perf_counter()
        reference = refer_to(part, SMALLEST_COMMON_LIMIT)
        count = publish_all(link, topic, [seal(Update(1, samples, reference, 0), topic, key, NO_IDENTITY)])
        blocks = blocks_of(part, reference)
        # A few at a time: a site does not hold the whole queue in memory either.
        while batch := [seal(block, topic, key, NO_IDENTITY) for block in islice(blocks, 64)]:
            count += publish_all(link, topic, batch)
        seconds = time.perf_counter() - started
    scale = len(payload) / len(part)
    return seconds * scale, round(count * scale)


def publish_all(link: Link, topic: str, payloads: Iterable[bytes]) -> int:
    """Publish the payloads, wait until all are acknowledged, and return their bytes."""
    count = 0
    for payload in payloads:
        link.publish(topic, payload)
        count += len(payload)
    while link.unfinished:
        link.next_event(timeout=1.0)
    return count


if __name__ == "__main__":
    main()
