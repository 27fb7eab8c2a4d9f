"""A second decoder of encoded heads, from `docs/protocol.md` alone: plain Python, and nothing of ours.

`decode(encoded, shapes)` takes the arrays' shapes by name, in the specification's order, and returns the
float32 values of each array as one flat list.
"""

import struct
import zlib

import zstandard


def decode(encoded, shapes):
    sizes = {name: product(shape) for name, shape in shapes.items()}
    reader = Reader(encoded[1:])
    values = [every_value, largest_values, thin_matrices, whole_head][encoded[0] - 1](reader, shapes, sizes)
    assert reader.rest() == b""
    return values


class Reader:
    def __init__(self, data):
        self.data = data

    def take(self, count):
        taken, self.data = self.data[:count], self.data[count:]
        assert len(taken) == count
        return taken

    def rest(self):
        return self.take(len(self.data))

    def byte(self):
        return self.take(1)[0]

    def variable_integer(self):
        byte = self.byte()
        return byte if byte < 128 else byte - 128 + 128 * self.variable_integer()

    def scales(self, count):
        return [struct.unpack("<f", b"\0\0" + self.take(2))[0] for _ in range(count)]


def product(shape):
    return shape[0] * product(shape[1:]) if shape else 1


def float32(value):
    return struct.unpack("<f", struct.pack("<f", value))[0]


def unwrap(wrapped):
    kind, body = wrapped[0], wrapped[1:]
    return body if kind == 0 else zstandard.ZstdDecompressor().decompress(b"\x28\xb5\x2f\xfd" + body)


def fields(data, width, count):
    bits = "".join(f"{byte:08b}" for byte in data)
    return [int(bits[width * index : width * index + width], 2) for index in range(count)]


def integers(data, bits, count):
    width = {1: 1, 2: 2 if count >= 16384 else 4, 3: 4, 4: 4, 8: 8}[bits]
    assert len(data) == (width * count + 7) // 8
    symbols = fields(data, width, count)
    if bits == 1:
        return [2 * symbol - 1 for symbol in symbols]
    return [-(symbol + 1) // 2 if symbol % 2 else symbol // 2 for symbol in symbols]


def positions(reader):
    count = reader.variable_integer()
    if count == 0:
        return []
    packed = unwrap(reader.take(reader.variable_integer()))
    lengths = fields(packed[1:], packed[0], count)
    digits = iter("".join(f"{byte:08b}" for byte in reader.take((sum(lengths) + 7) // 8)))
    found, last = [], -1
    for length in lengths:
        last += int("1" + "".join(next(digits) for _ in range(length)), 2)
        found.append(last)
    return found


def split(values, sizes):
    arrays, start = {}, 0
    for name, size in sizes.items():
        arrays[name] = values[start : start + size]
        start += size
    assert start == len(values)
    return arrays


def every_value(reader, shapes, sizes):
    number_format, content = reader.byte(), Reader(unwrap(reader.rest()))
    if number_format in (16, 32):
        planes, width, count = content.rest(), number_format // 8, sum(sizes.values())
        raw = bytes(planes[plane * count + index] for index in range(count) for plane in range(width))
        return split(list(struct.unpack(f"<{count}{'e' if width == 2 else 'f'}", raw)), sizes)
    bits, per_array = number_format % 128, number_format >= 128
    rows = {name: 1 if per_array or len(shape) < 2 else shape[0] for name, shape in shapes.items()}
    scales = {name: content.scales(count) for name, count in rows.items()}
    length = {name: sizes[name] // rows[name] for name in shapes}
    sent = sum(length[name] for name in shapes for scale in scales[name] if scale)
    numbers = iter(integers(content.rest(), bits, sent))
    return {
        name: [
            float32(next(numbers) * scale) if scale else 0.0
            for scale in scales[name]
            for _ in range(length[name])
        ]
        for name in shapes
    }


def largest_values(reader, shapes, sizes):
    bits, places, scales = reader.byte(), positions(reader), reader.scales(len(shapes))
    scale_at = [scale for scale, size in zip(scales, sizes.values(), strict=True) for _ in range(size)]
    values = [0.0] * sum(sizes.values())
    for place, number in zip(places, integers(unwrap(reader.rest()), bits, len(places)), strict=True):
        values[place] = float32(number * scale_at[place])
    return split(values, sizes)


def thin_matrices(reader, shapes, sizes):
    groups = []
    for name, shape in shapes.items():
        own = [group for group in groups if len(shapes[group[0]]) > 1 and shapes[group[0]][0] == sizes[name]]
        if len(shape) < 2 and own:
            own[-1].append(name)
        else:
            groups.append([name])
    bits, heads = reader.byte(), []
    for group in groups:
        rows = shapes[group[0]][0] if shapes[group[0]] else 1
        columns = sizes[group[0]] // rows + len(group) - 1
        rank = reader.byte()
        off = positions(reader) if rank else []
        scale = reader.scales(1)[0] if rank else 0.0
        weights = reader.take(rank)
        exponents = (
            struct.unpack(f"{len(group) - 1}b", reader.take(len(group) - 1)) if rank else (0,) * len(group)
        )
        heads.append(
            (rows, columns, rank, [row for row in range(rows) if row not in off], scale, weights, exponents)
        )
    count = sum(rank * (len(on) + columns) for _, columns, rank, on, *_ in heads)
    numbers = iter(integers(unwrap(reader.rest()), bits, count))
    arrays = {}
    for group, (rows, columns, rank, on, scale, weights, exponents) in zip(groups, heads, strict=True):
        left = {row: [next(numbers) for _ in range(rank)] for row in on}
        right = [[next(numbers) for _ in range(rank)] for _ in range(columns)]
        of_matrix = columns - len(group) + 1

        def value(row, column, factor=1.0, left=left, right=right, weights=weights, scale=scale):
            terms = zip(left.get(row, ()), right[column], weights, strict=False)
            return float32(sum(a * b * weight for a, b, weight in terms) * scale * factor)

        arrays[group[0]] = [value(row, column) for row in range(rows) for column in range(of_matrix)]
        for number, name in enumerate(group[1:]):
            arrays[name] = [value(row, of_matrix + number, 2.0 ** -exponents[number]) for row in range(rows)]
    return arrays


def whole_head(reader, shapes, sizes):
    count = sum(sizes.values())
    return split(list(struct.unpack(f"<{count}e", zlib.decompress(reader.rest()))), sizes)
