"""Reading an encoded head byte by byte, and writing the integers in it."""

from fedmedclip.protocol.errors import CodecError


class Reader:
    """Walks through bytes from the front. Raises CodecError where they end too soon."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    def take(self, count: int) -> bytes:
        """Return the next `count` bytes."""
        end = self._position + count
        if end > len(self._data):
            raise CodecError(f"an encoded head ends after {len(self._data)} bytes, {end} were expected")
        taken = self._data[self._position : end]
        self._position = end
        return taken

    def byte(self) -> int:
        """Return the next byte as an integer."""
        return self.take(1)[0]

    def variable_integer(self, largest: int) -> int:
        """Return the next integer of `variable_integer`; CodecError when it is above `largest`."""
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            shift += 7
            if value > largest or shift > 35:
                raise CodecError(f"a count in an encoded head is {value} or more, at most {largest} fit")
            if byte < 0x80:
                return value

    def rest(self) -> bytes:
        """Return everything that has not been read."""
        return self.take(len(self._data) - self._position)

    def finish(self) -> None:
        """Raise CodecError unless everything has been read."""
        if self._position != len(self._data):
            raise CodecError(f"{len(self._data) - self._position} bytes follow an encoded head")


def variable_integer(value: int) -> bytes:
    """Return an integer >= 0 in groups of 7 bits, the lowest first; the high bit says that more follow."""
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])
