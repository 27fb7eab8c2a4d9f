"""A second decoder, written from the text of docs/protocol.md alone: it imports nothing of this project.

Plain Python, a MessagePack reader and a zstd decompressor, in at most 180 lines of code. Slow, and without a
check of what it reads: for tests only. `tensors` are [name, dimensions] in the specification's order, with
"symmetric" behind where an array is that; a head maps a name to (dimensions, values).
"""

import hashlib
import struct
import zlib
from io import BytesIO, StringIO
from itertools import accumulate
from math import isqrt, prod

import msgspec
import zstandard


def open_envelope(payload, topic, identity):
    """Section "Envelope": the message's items, the signed bytes, the signature."""
    frame, body, signature = payload[:3], payload[3:-64], payload[-64:]
    signed = bytes(16) if topic.split("/")[2] in ("plan", "status", "roster") else identity
    return msgspec.msgpack.decode(body), frame + signed + topic.encode() + b"\0" + body, signature


def head_digest(head):
    """Section "Heads"."""
    digest = hashlib.sha256()
    for name, (shape, values) in sorted(head.items()):
        digest.update(struct.pack(f"<{2 + len(shape)}I", len(name.encode()), len(shape), *shape))
        digest.update(name.encode() + struct.pack(f"<{len(values)}f", *values))
    return digest.hexdigest()


def philox(k0, k1, block):
    """Section "Heads": a block of four draws of Philox4x64-10, as numbers from -1 to 1."""
    a, b, c, d = block, 0, 0, 0
    for _ in range(10):
        p, q = 0xD2E7470EE14C6C93 * a, 0xCA5A826395121157 * c
        a, b, c, d = q >> 64 ^ b ^ k0, q % 2**64, p >> 64 ^ d ^ k1, p % 2**64
        k0, k1 = (k0 + 0x9E3779B97F4A7C15) % 2**64, (k1 + 0xBB67AE8584CAA73B) % 2**64
    return [(draw >> 40) * 2.0**-23 - 1 for draw in (a, b, c, d)]


def named_seed(federation_seed, site, round_number, purpose):
    """Section "Heads": 63 bits."""
    texts = [text.encode() for text in (str(federation_seed), site, str(round_number), purpose)]
    hashed = hashlib.sha256(b"".join(len(text).to_bytes(4, "big") + text for text in texts)).digest()
    return int.from_bytes(hashed[:8], "big") >> 1


def version_0(federation_seed, tensors, bounds):
    """Section "Heads": the values of version 0."""
    seed, head = named_seed(federation_seed, "", 0, "shared head"), {}
    for k, ((name, shape), bound) in enumerate(zip(tensors, bounds, strict=True)):
        units = [unit for block in range(prod(shape) // 4 + 1) for unit in philox(seed, k, block + 1)]
        head[name] = shape, [float32(unit * float32(bound)) + 0.0 for unit in units[: prod(shape)]]
    return head


def float32(number):
    """A number rounded to float32. All products of the format are exact in Python's float64 before."""
    return struct.unpack("<f", struct.pack("<f", number))[0]


def decode_head(encoded, tensors):
    """Section "Encoded heads"."""
    values = iter(
        {1: dense, 2: sparse, 3: low_rank, 4: paper, 5: moments}[encoded[0]](BytesIO(encoded[1:]), tensors)
    )
    return {name: (shape, [float32(next(values)) for _ in range(prod(shape))]) for name, shape, *_ in tensors}


def content(source):
    compressed, rest = source.read(1)[0], source.read()
    return zstandard.ZstdDecompressor().decompress(b"\x28\xb5\x2f\xfd" + rest) if compressed else rest


def variable_integer(source):
    byte = source.read(1)[0]
    return byte if byte < 128 else byte - 128 + 128 * variable_integer(source)


def scale(source):
    return struct.unpack("<f", b"\0\0" + source.read(2))[0]


def binary_digits(data):
    return StringIO("".join(f"{byte:08b}" for byte in data))


def symbols(packed, count, bits):
    width, digits = {1: 1, 2: 2 if count >= 16_384 else 4, 3: 4, 4: 4, 8: 8}[bits], binary_digits(packed)
    return [int(digits.read(width), 2) for _ in range(count)]


def integers(packed, count, bits):
    return [2 * s - 1 if bits == 1 else (-1) ** s * ((s + 1) // 2) for s in symbols(packed, count, bits)]


def positions(source):
    if not (count := variable_integer(source)):
        return []
    packed = content(BytesIO(source.read(variable_integer(source))))
    lengths = symbols(packed[1:], count, packed[0])
    digits = binary_digits(source.read(-(-sum(lengths) // 8)))
    return list(accumulate((int("1" + digits.read(length), 2) for length in lengths), initial=-1))[1:]


def dense(source, tensors):
    form, source = source.read(1)[0], BytesIO(content(source))
    if form in (16, 32):
        planes, count = source.read(), sum(prod(shape) for _, shape, *_ in tensors)
        values = b"".join(planes[i::count] for i in range(count))
        return struct.unpack(f"<{count}{'e' if form == 16 else 'f'}", values)
    counts = [shape[0] if len(shape) > 1 and form < 128 else 1 for _, shape, *_ in tensors]
    lengths = [prod(shape) // n for (_, shape, *_), n in zip(tensors, counts, strict=True) for _ in range(n)]
    scales = [unit for length in lengths for unit in [scale(source)] * length]
    sent = iter(integers(source.read(), sum(unit > 0 for unit in scales), form & 127))
    return [unit * next(sent) if unit else 0.0 for unit in scales]


def sparse(source, tensors):
    bits, places = source.read(1)[0], positions(source)
    values = [unit for _, shape, *_ in tensors for unit in [scale(source)] * prod(shape)]
    sent = dict(zip(places, integers(content(source), len(places), bits), strict=True))
    return [unit * sent[place] if place in sent else 0.0 for place, unit in enumerate(values)]


def low_rank(source, tensors):
    bits, groups, headers, head = source.read(1)[0], [], [], {}
    for name, shape, *_ in tensors:
        matching = [group for group in groups if len(group[0][1]) > 1 and group[0][1][0] == prod(shape)]
        if len(shape) > 1 or not matching:
            groups += (matching := [[]])
        matching[-1].append((name, shape))
    for (_, shape), *vectors in groups:
        rank, rows = source.read(1)[0], shape[0] if shape else 1
        off, unit = (positions(source), scale(source)) if rank else ([], 0.0)
        weights, exponents = source.read(rank), source.read(len(vectors)) if rank else bytes(len(vectors))
        units = [unit * 2.0**-exponent for exponent in struct.unpack(f"{len(vectors)}b", exponents)]
        headers.append((rows, off, weights, [unit] * (prod(shape) // rows) + units))
    count = sum(len(weights) * (rows - len(off) + len(units)) for rows, off, weights, units in headers)
    sent = iter(integers(content(source), count, bits))
    for ((name, _), *vectors), (rows, off, weights, units) in zip(groups, headers, strict=True):
        left = [[0 if row in off else next(sent) for _ in weights] for row in range(rows)]
        right = [[unit * weight * next(sent) for weight in weights] for unit in units]
        table = [[sum(a * b for a, b in zip(row, column, strict=True)) for column in right] for row in left]
        head[name] = [number for row in table for number in row[: len(row) - len(vectors)]]
        head |= {v: [row[k] for row in table] for k, (v, _) in enumerate(vectors, -len(vectors))}
    return [number for name, *_ in tensors for number in head[name]]


def paper(source, tensors):
    return struct.unpack(f"<{sum(prod(shape) for _, shape, *_ in tensors)}e", zlib.decompress(source.read()))


class RangeDecoder:
    """Section "5: statistics": the bits of a range coder, and integers of them."""

    def __init__(self, data):
        self.data, self.range, self.counts, self.levels = BytesIO(data + bytes(3)), 2**32, {}, {}
        self.value = int.from_bytes(self.data.read(4), "big")

    def narrow(self, split):
        bit = int(self.value >= split)
        self.value, self.range = (self.value - split, self.range - split) if bit else (self.value, split)
        while self.range < 2**24:
            self.value, self.range = self.value * 256 + self.data.read(1)[0], self.range * 256
        return bit

    def bit(self, *context):
        counts = self.counts.setdefault(context, [1, 1])
        bit = self.narrow(self.range * counts[0] // sum(counts))
        counts[bit] += 2
        if sum(counts) > 1024:
            counts[:] = [(count + 1) // 2 for count in counts]
        return bit

    def even(self, number):
        return sum(self.narrow(self.range // 2) << place for place in reversed(range(number)))

    def integer(self, kind):
        level, length = self.levels.get(kind, 16), 0
        while length < 12 and self.bit(kind, "length", level.bit_length(), length):
            length += 1
        size = min(length, 1)
        for place in range(length - 1):
            context = kind, "digit", length, size if place else 0
            size = 2 * size + (self.bit(*context) if place < 2 else self.even(1))
        self.levels[kind] = level + size - level // 16
        return -size if size and self.bit(kind, "sign") else size

    def integers(self, kind, number):
        return [self.integer(kind) for _ in range(number)]

    def scale(self):
        return struct.unpack("<f", struct.pack("<I", self.even(16) << 16))[0]


def moments(source, tensors):
    coder, head, directions = RangeDecoder(source.read(variable_integer(source))), {}, {}
    for name, shape, *marks in sorted(tensors, key=lambda tensor: len(tensor) < 3):
        if marks:
            head[name], factor = symmetric(coder, shape[0])
            directions.setdefault(shape[0], factor)
        elif unit := coder.scale():
            if len(shape) > 1:
                head[name] = rows(coder, unit, shape[0], directions.get(prod(shape[1:]), []), prod(shape[1:]))
            else:
                kind = "vectors" if prod(shape) <= 64 else "rows"
                head[name] = [unit * number for number in coder.integers(kind, prod(shape))]
        else:
            head[name] = [0.0] * prod(shape)
    return [number for name, *_ in tensors for number in head[name]]


def symmetric(coder, size):
    if not (unit := coder.scale()):
        return [0.0] * size**2, []
    diagonal = coder.scale()
    diagonal = -diagonal if diagonal and coder.even(1) else diagonal
    factor = [
        (coder.integer("weights"), coder.integers("factors", size)) for _ in range(coder.integer("counts"))
    ]
    table = [[sum(w * row[i] * row[j] for w, row in factor) for j in range(size)] for i in range(size)]
    values = [unit * table[i][j] + (diagonal if i == j else 0.0) for i in range(size) for j in range(size)]
    return values, [row for _, row in factor]


def rows(coder, unit, count, directions, columns):
    steps = list(accumulate(coder.integers("steps", count)))
    lengths = [isqrt(sum(number**2 for number in direction)).bit_length() for direction in directions]
    parts = [[number / 2 ** max(0, k - 2) for number in d] for d, k in zip(directions, lengths, strict=True)]
    values, before = {}, [0.0] * columns
    for place, row in enumerate(sorted((row for row in range(count) if steps[row]), key=lambda r: -steps[r])):
        mixture = coder.integers("mixtures", len(parts))
        follow, own = coder.integer("follows") if place else 0, coder.integers("rows", columns)
        mixed = [sum(a * part[j] for a, part in zip(mixture, parts, strict=True)) for j in range(columns)]
        step = unit * steps[row]
        values[row] = [(m + o) * step + follow / 128 * b for m, o, b in zip(mixed, own, before, strict=True)]
        before = [b + v for b, v in zip(before, values[row], strict=True)]
    return [number for row in range(count) for number in values.get(row, [0.0] * columns)]
