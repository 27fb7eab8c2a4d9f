"""A second decoder, written from the text of docs/protocol.md alone: it imports nothing of this project.

Plain Python and a zstd decompressor, about a hundred lines. Slow, without bounds; for the golden files only.
"""

import hashlib
import struct
from itertools import pairwise

import zstandard

WORD = (1 << 64) - 1


def number(data, format):
    return struct.unpack(format, data)[0]


def float32(value):
    return number(struct.pack("<f", value), "<f")


def read(data, at=0):
    """Section "Messages": one MessagePack value, and where it ends."""

    def take(count):
        nonlocal at
        at += count
        return data[at - count : at]

    def several(count):
        nonlocal at
        values = []
        for _ in range(count):
            value, at = read(data, at)
            values.append(value)
        return values

    def pairs(count):
        flat = several(2 * count)
        return dict(zip(flat[::2], flat[1::2], strict=True))

    def length(size):
        return int.from_bytes(take(size), "big")

    first = take(1)[0]
    if first < 0x80:
        return first, at
    if first >= 0xE0:
        return first - 256, at
    if first < 0x90:
        return pairs(first & 15), at
    if first < 0xA0:
        return several(first & 15), at
    if first < 0xC0:
        return take(first & 31).decode(), at
    kinds = {
        0xC0: lambda: None,
        0xC2: lambda: False,
        0xC3: lambda: True,
        0xCA: lambda: number(take(4), ">f"),
        0xCB: lambda: number(take(8), ">d"),
    }
    for size in range(4):
        kinds[0xCC + size] = lambda size=size: length(1 << size)
        kinds[0xD0 + size] = lambda size=size: int.from_bytes(take(1 << size), "big", signed=True)
    for size in range(3):
        kinds[0xC4 + size] = lambda size=size: take(length(1 << size))
        kinds[0xD9 + size] = lambda size=size: take(length(1 << size)).decode()
    for size in range(2):
        kinds[0xDC + size] = lambda size=size: several(length(2 << size))
        kinds[0xDE + size] = lambda size=size: pairs(length(2 << size))
    return kinds[first](), at


def open_envelope(payload, topic):
    """Section "Envelope": the message's items, the signed bytes, the signature."""
    assert payload[:3] == b"FM\x01"
    body = payload[3:-64]
    items, end = read(body)
    assert end == len(body)
    return items, payload[:3] + topic.encode() + b"\0" + body, payload[-64:]


def head_digest(head):
    """Section "Heads": `head` maps a name to (dimensions, values)."""
    digest = hashlib.sha256()
    for name, (shape, values) in sorted(head.items()):
        digest.update(struct.pack(f"<{2 + len(shape)}I", len(name.encode()), len(shape), *shape))
        digest.update(name.encode() + struct.pack(f"<{len(values)}f", *values))
    return digest.hexdigest()


def philox(key, count):
    """Section "Heads": `count` draws of Philox4x64-10."""
    draws = []
    for block in range(1, count // 4 + 2):
        a, b, c, d = block, 0, 0, 0
        for turn in range(10):
            first, second = 0xD2E7470EE14C6C93 * a, 0xCA5A826395121157 * c
            left = (key[0] + turn * 0x9E3779B97F4A7C15) & WORD
            right = (key[1] + turn * 0xBB67AE8584CAA73B) & WORD
            a, b, c, d = second >> 64 ^ b ^ left, second & WORD, first >> 64 ^ d ^ right, first & WORD
        draws += [a, b, c, d]
    return draws[:count]


def version_0(federation_seed, tensors, bounds):
    """Section "Heads": the values of version 0, array after array."""
    parts = [str(federation_seed).encode(), b"", b"0", b"shared head"]
    text = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    seed = int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 1
    head = {}
    for index, ((name, shape), bound) in enumerate(zip(tensors, bounds, strict=True)):
        draws = philox([seed, index], size(shape))
        units = [(draw >> 40) * 2.0**-23 - 1.0 for draw in draws]
        head[name] = (shape, [float32(unit * float32(bound)) + 0.0 for unit in units])
    return head


def size(shape):
    product = 1
    for dimension in shape:
        product *= dimension
    return product


def unpacked(encoded):
    return zstandard.ZstdDecompressor().decompress(encoded[1:])


def lossless(encoded, tensors):
    planes = unpacked(encoded)
    count = len(planes) // 4
    values = struct.unpack(f"<{count}f", bytes(planes[i % 4 * count + i // 4] for i in range(4 * count)))
    return cut(values, tensors)


def int8(encoded, tensors):
    packed = unpacked(encoded)
    rows = [shape[0] if len(shape) > 1 else 1 for _, shape in tensors]
    scales = struct.unpack(f"<{sum(rows)}f", packed[: 4 * sum(rows)])
    integers = iter(struct.unpack(f"{len(packed) - 4 * sum(rows)}b", packed[4 * sum(rows) :]))
    widths = [
        size(shape) // count for (_, shape), count in zip(tensors, rows, strict=True) for _ in range(count)
    ]
    return cut(
        [
            float32(scale * next(integers))
            for scale, width in zip(scales, widths, strict=True)
            for _ in range(width)
        ],
        tensors,
    )


def cut(values, tensors):
    ends = [0]
    for _, shape in tensors:
        ends.append(ends[-1] + size(shape))
    return {
        name: (shape, list(values[start:end]))
        for (name, shape), (start, end) in zip(tensors, pairwise(ends), strict=True)
    }


DECODERS = {1: lossless, 2: int8}


def decode_head(encoded, tensors):
    """Section "Encoded heads": `tensors` are [name, dimensions] in order."""
    return DECODERS[encoded[0]](encoded, tensors)
