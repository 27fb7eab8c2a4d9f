"""A second decoder, written from the text of docs/protocol.md alone: it imports nothing of this project.

Plain Python and a zstd decompressor. Slow, and without a check of what it reads: for tests only.
"""

import hashlib
import struct
import zlib
from math import prod
from operator import mul

import zstandard

WORD = (1 << 64) - 1


class Bytes:
    """Bytes that are read from the front."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, count):
        self.at += count
        return self.data[self.at - count : self.at]

    def rest(self):
        return self.take(len(self.data) - self.at)

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


def decode_head(encoded, tensors):
    """Section "Encoded heads": `tensors` are [name, dimensions] in order."""
    return {1: dense, 2: sparse, 3: low_rank, 4: paper}[encoded[0]](Bytes(encoded[1:]), tensors)


def content(source):
    compressed, rest = source.take(1)[0], source.rest()
    return zstandard.ZstdDecompressor().decompress(b"\x28\xb5\x2f\xfd" + rest) if compressed else rest


def variable_integer(source):
    byte = source.take(1)[0]
    return byte if byte < 128 else byte - 128 + 128 * variable_integer(source)


def scale(source):
    return struct.unpack("<f", b"\0\0" + source.take(2))[0]


def symbols(packed, count, bits):
    width = {1: 1, 2: 2 if count >= 16_384 else 4, 3: 4, 4: 4, 8: 8}[bits]
    return [packed[i * width // 8] >> 8 - width - i * width % 8 & (1 << width) - 1 for i in range(count)]


def integers(packed, count, bits):
    found = symbols(packed, count, bits)
    if bits == 1:
        return [2 * symbol - 1 for symbol in found]
    return [-(symbol + 1) // 2 if symbol & 1 else symbol // 2 for symbol in found]


def floats(data, width, tensors):
    return arrays(struct.unpack(f"<{len(data) // width}{'e' if width == 2 else 'f'}", data), tensors)


def dense(source, tensors):
    form = source.take(1)[0]
    if form in (16, 32):
        planes, width = content(source), form // 8
        count = len(planes) // width
        mixed = bytes(planes[place % width * count + place // width] for place in range(len(planes)))
        return floats(mixed, width, tensors)
    source, scales = Bytes(content(source)), []
    for _, shape in tensors:
        rows = shape[0] if len(shape) > 1 and form < 128 else 1
        scales += [unit for unit in [scale(source) for _ in range(rows)] for _ in range(prod(shape) // rows)]
    sent = iter(integers(source.rest(), sum(unit > 0 for unit in scales), form & 127))
    return arrays([float32(unit * next(sent)) if unit else 0.0 for unit in scales], tensors)


def positions(source):
    count, position, found = variable_integer(source), -1, []
    if count:
        packed = content(Bytes(source.take(variable_integer(source))))
        lengths = symbols(packed[1:], count, packed[0])
        tail = source.take(-(-sum(lengths) // 8))
        bits, left = int.from_bytes(tail, "big"), 8 * len(tail)
        for length in lengths:
            left -= length
            position += 1 << length | bits >> left & (1 << length) - 1
            found.append(position)
    return found


def sparse(source, tensors):
    bits, places = source.take(1)[0], positions(source)
    scales = [unit for _, shape in tensors for unit in [scale(source)] * prod(shape)]
    values = [0.0] * len(scales)
    for place, integer in zip(places, integers(content(source), len(places), bits), strict=True):
        values[place] = float32(scales[place] * integer)
    return arrays(values, tensors)


def low_rank(source, tensors):
    bits, groups, heads, head = source.take(1)[0], [], [], {}
    for name, shape in tensors:
        fitting = [group for group in groups if len(group[0][1]) > 1 and group[0][1][0] == prod(shape)]
        if len(shape) < 2 and fitting:
            fitting[-1].append((name, shape))
        else:
            groups.append([(name, shape)])
    for (_, shape), *vectors in groups:
        rows, rank = shape[0] if shape else 1, source.take(1)[0]
        off, unit = (positions(source), scale(source)) if rank else ([], 0.0)
        weights, stored = source.take(rank), source.take(len(vectors)) if rank else bytes(len(vectors))
        exponents = struct.unpack(f"{len(vectors)}b", stored)
        heads.append((rows, prod(shape) // rows, off, unit, weights, exponents))
    count = sum(len(w) * (rows - len(off) + width + len(e)) for rows, width, off, _, w, e in heads)
    sent = iter(integers(content(source), count, bits))
    for ((name, shape), *vectors), (rows, width, off, unit, weights, exponents) in zip(
        groups, heads, strict=True
    ):
        left = [[0 if row in off else next(sent) for _ in weights] for row in range(rows)]
        right = [[weight * next(sent) for weight in weights] for _ in range(width + len(vectors))]
        table = [[sum(map(mul, one, other)) * unit for other in right] for one in left]
        head[name] = shape, [float32(number) for row in table for number in row[:width]]
        for place, ((vector, length), exponent) in enumerate(zip(vectors, exponents, strict=True), width):
            head[vector] = length, [float32(row[place] * 2.0**-exponent) for row in table]
    return {name: head[name] for name, _ in tensors}


def paper(source, tensors):
    return floats(zlib.decompress(source.rest()), 2, tensors)
