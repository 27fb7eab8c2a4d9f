"""Deltas to encode, the same bits on every machine: made without sums, from the head's own generator."""

import hashlib

import numpy as np

from fedmedclip.protocol.codecs import codec_named, decode_head, encode_head
from fedmedclip.protocol.heads.head import HeadSpecification, TensorSpecification, head_digest
from fedmedclip.protocol.heads.layers import masked_linear_tensors
from fedmedclip.protocol.heads.shared_heads import shared_head_specification

SMALL = HeadSpecification(
    (
        *masked_linear_tensors("first", 12, 9),
        TensorSpecification("norm.running_mean", (12,)),
        TensorSpecification("norm.running_var", (12,), lowest=0.0),
        TensorSpecification("kernel", (3, 4, 2), initial_bound=0.5),
        TensorSpecification("lonely", (7,), initial_bound=0.5),
        TensorSpecification("single", (), initial_bound=0.5),
    )
)
STATISTICS = HeadSpecification(
    (
        TensorSpecification("shares", (5,)),
        TensorSpecification("spread", (1,)),
        TensorSpecification("evidence", (6,), measured=True),
        TensorSpecification("sums", (5, 24), initial_bound=0.5),
        TensorSpecification("long", (80,)),
        TensorSpecification("scatter", (24, 24), symmetric=True),
    )
)
LARGE_STATISTICS = HeadSpecification(
    (
        TensorSpecification("shares", (6,), initial_bound=0.5),
        TensorSpecification("sums", (6, 300), initial_bound=0.5),
        TensorSpecification("scatter", (300, 300), initial_value=0.5, symmetric=True),
    )
)
FAM = shared_head_specification("fedmedclip", 48)

PRESETS = [
    "lossless", "fp16", "int8", "int8:scale=array", "int4", "int3", "int2", "sign", "sign:scale=array",
    "topk", "topk:share=0.2,bits=4", "lowrank", "lowrank:rank=2,bits=2", "lowrank:rank=3,bits=8",
    "auto:bytes=1460", "moments", "moments:bytes=400", "paper-fp16-zlib",
]  # fmt: skip


def noise(specification, seed=0, scale=1.0):
    """Normal values: what compresses worst."""
    generator = np.random.default_rng(seed)
    return {
        tensor.name: of_its_kind(
            tensor, np.asarray(scale * generator.standard_normal(tensor.shape), np.float32)
        )
        for tensor in specification.tensors
    }


def of_its_kind(tensor, array):
    """Return an array; of one that is to be symmetric the mean with its transpose."""
    return (array + array.T) * np.float32(0.5) if tensor.symmetric else array


def structured(specification, seed=0, noise_share=0.1):
    """A few directions and a little noise, as trained deltas have: sums of element-wise products alone."""
    drawn = specification.initial(seed)
    delta = {}
    for tensor in specification.tensors:
        values = np.float32(noise_share) * drawn[tensor.name]
        if tensor.symmetric:
            for row in range(3):
                side = drawn["sums"][row]
                values = values + np.float32((-1) ** row * 8 / (row + 1)) * side[:, None] * side
        elif len(tensor.shape) == 2:
            for row in range(3):
                side = drawn[tensor.name]
                values = values + np.float32(8 / (row + 1)) * side[:, row, None] * side[row, None, :]
        delta[tensor.name] = values.astype(np.float32)
    return delta


def statistics(seed=0):
    """What 340 images of five classes sum to: like rows, a scatter of a few large directions."""
    generator = np.random.default_rng(seed)
    size, classes, images = 24, 5, 340
    lengths = np.sqrt(0.2 / np.arange(1, size + 1) ** 1.5)
    axes = np.linalg.qr(generator.standard_normal((size, size)))[0]
    means = 0.8 * axes[0] + 0.3 * (lengths * generator.standard_normal((classes, size))) @ axes
    labels = generator.choice(classes, images, p=[0.6, 0.2, 0.1, 0.06, 0.04])
    images_of = means[labels] + (lengths * generator.standard_normal((images, size))) @ axes
    chosen = (labels[:, None] == np.arange(classes)).astype(float)
    counts = chosen.sum(axis=0)
    sums = chosen.T @ images_of
    offsets = images_of - (sums / counts[:, None])[labels]
    arrays = {
        "shares": counts / images,
        "spread": np.array([(offsets**2).sum() / images]),
        "evidence": generator.uniform(0.5, 1, 6),
        "sums": sums / images,
        "long": generator.standard_normal(80),
        "scatter": offsets.T @ offsets / images,
    }
    return {
        tensor.name: of_its_kind(tensor, arrays[tensor.name].astype(np.float32))
        for tensor in STATISTICS.tensors
    }


def squared_error(one, other):
    return sum(float(((one[name].astype(float) - other[name]) ** 2).sum()) for name in one)


def energy(delta):
    return sum(float((array.astype(float) ** 2).sum()) for array in delta.values())


def digests_of_all_codecs():
    """Return two digests over two rounds of every preset: of encoded bytes and memory, of what is decoded.

    The first also depends on the version of zstd, the second on nothing.
    """
    sent, decoded = hashlib.sha256(), hashlib.sha256()
    large = shared_head_specification("fedmedclip", 160)
    for name in PRESETS:
        specification = LARGE_STATISTICS if name.startswith("moments") else large
        codec, memory = codec_named(name), b""
        for seed in (1, 2):
            delta = structured(specification, seed, noise_share=1.0)
            encoded = encode_head(codec, delta, specification, memory)
            memory = encoded.memory
            sent.update(encoded.data + memory)
            decoded.update(head_digest(decode_head(encoded.data, specification)))
    return sent.hexdigest(), decoded.hexdigest()


def encoded(name, delta, specification=SMALL, memory=b""):
    return encode_head(codec_named(name), delta, specification, memory)


def round_trip(name, delta, specification=SMALL):
    return decode_head(encoded(name, delta, specification).data, specification)
