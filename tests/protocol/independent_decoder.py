"""A second decoder, written from the text of docs/protocol.md alone: it imports nothing of this project.

Plain Python and a zstd decompressor. Slow, and without a check of what it reads: for the golden files only.
"""

import hashlib
import struct
from math import prod

import zstandard

WORD = (1 << 64) - 1


class Bytes:
    """Bytes that are read from the front."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, count):
        self.at += count
        return self.data[self.at - count : self.at]

    def big_endian(self, count, signed=False):
        return int.from_bytes(self.take(count), "big", signed=signed)


def value(source):
    """Section "Messages": the next MessagePack value."""

    def several(count):
        return [value(source) for _ in range(count)]

    def pairs(count):
        return {value(source): value(source) for _ in range(count)}

    first = source.big_endian(1)
    if first < 0x80 or first >= 0xE0:
        return first if first < 0x80 else first - 256
    if first < 0xC0:
        return (
            source.take(first & 31).decode()
            if first >= 0xA0
            else (pairs, several)[first >> 4 & 1](first & 15)
        )
    if first <= 0xC3:
        return (None, None, False, True)[first & 3]
    if first <= 0xC6:
        return source.take(source.big_endian(1 << (first - 0xC4)))
    if first <= 0xCB:
        return struct.unpack(">d" if first == 0xCB else ">f", source.take(8 if first == 0xCB else 4))[0]
    if first <= 0xD3:
        return source.big_endian(1 << (first & 3), signed=first >= 0xD0)
    if first <= 0xDB:
        return source.take(source.big_endian(1 << (first - 0xD9))).decode()
    return (several if first <= 0xDD else pairs)(source.big_endian(2 << (first & 1)))


def open_envelope(payload, topic):
    """Section "Envelope": the message's items, the signed bytes, the signature."""
    assert payload[:3] == b"FM\x01"
    body = Bytes(payload[3:-64])
    items = value(body)
    assert body.at == len(body.data)
    return items, payload[:3] + topic.encode() + b"\0" + body.data, payload[-64:]


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
            p, q = 0xD2E7470EE14C6C93 * a, 0xCA5A826395121157 * c
            k0 = (key[0] + turn * 0x9E3779B97F4A7C15) & WORD
            k1 = (key[1] + turn * 0xBB67AE8584CAA73B) & WORD
            a, b, c, d = q >> 64 ^ b ^ k0, q & WORD, p >> 64 ^ d ^ k1, p & WORD
        draws += [a, b, c, d]
    return draws[:count]


def version_0(federation_seed, tensors, bounds):
    """Section "Heads": the values of version 0."""
    texts = [str(federation_seed).encode(), b"", b"0", b"shared head"]
    hashed = hashlib.sha256(b"".join(struct.pack(">I", len(text)) + text for text in texts)).digest()
    seed = int.from_bytes(hashed[:8], "big") >> 1
    head = {}
    for index, ((name, shape), bound) in enumerate(zip(tensors, bounds, strict=True)):
        units = [(draw >> 40) * 2.0**-23 - 1 for draw in philox([seed, index], prod(shape))]
        head[name] = shape, [float32(unit * float32(bound)) + 0.0 for unit in units]
    return head


def float32(number):
    """A number rounded to float32. The product of two float32 numbers is exact before."""
    return struct.unpack("<f", struct.pack("<f", number))[0]


def arrays(values, tensors):
    """All values in the specification's order, cut into named arrays."""
    head, position = {}, 0
    for name, shape in tensors:
        head[name] = shape, list(values[position : position + prod(shape)])
        position += prod(shape)
    return head


def unpacked(encoded):
    return zstandard.ZstdDecompressor().decompress(encoded[1:])


def lossless(encoded, tensors):
    planes = unpacked(encoded)
    count = len(planes) // 4
    mixed = bytes(planes[place % 4 * count + place // 4] for place in range(4 * count))
    return arrays(struct.unpack(f"<{count}f", mixed), tensors)


def int8(encoded, tensors):
    packed = unpacked(encoded)
    rows = [shape[0] if len(shape) > 1 else 1 for _, shape in tensors]
    scales = struct.unpack(f"<{sum(rows)}f", packed[: 4 * sum(rows)])
    integers = struct.unpack(f"{len(packed) - 4 * sum(rows)}b", packed[4 * sum(rows) :])
    lengths = [
        prod(shape) // count for (_, shape), count in zip(tensors, rows, strict=True) for _ in range(count)
    ]
    spread = [scale for scale, length in zip(scales, lengths, strict=True) for _ in range(length)]
    return arrays([float32(a * b) for a, b in zip(spread, integers, strict=True)], tensors)


DECODERS = {1: lossless, 2: int8}


def decode_head(encoded, tensors):
    """Section "Encoded heads": `tensors` are [name, dimensions] in order."""
    return DECODERS[encoded[0]](encoded, tensors)
