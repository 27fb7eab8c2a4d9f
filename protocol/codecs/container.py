"""The outermost layer: bytes as they are or as a zstd frame (RFC 8878), whichever is smaller.

The frame goes without its magic number, which is the same four bytes each time.
"""

import zstandard

from fedmedclip.protocol.errors import CodecError

_MAGIC = b"\x28\xb5\x2f\xfd"
_PLAIN, _COMPRESSED = b"\x00", b"\x01"
_WINDOW_LIMIT = 1 << 27
# Up to 16 KiB, from level 12 on, zstd's cost model is good enough to leave noise to its Huffman coder. Above,
# the same level means another search, which takes a tenth more bytes.
_SMALL, _SMALL_LEVEL = 1 << 14, 12
# In larger content, repeats that chance made cost more than they save: a table of 64 places finds few of
# them.
_FOR_LARGE = zstandard.ZstdCompressionParameters.from_level(
    1, strategy=zstandard.STRATEGY_FAST, min_match=7, hash_log=6
)


def wrap(content: bytes) -> bytes:
    """Return one byte, 0 or 1, and the content as it is (0) or compressed (1)."""
    if len(content) <= _SMALL:
        compressor = zstandard.ZstdCompressor(level=_SMALL_LEVEL)
    else:
        compressor = zstandard.ZstdCompressor(compression_params=_FOR_LARGE)
    frame = compressor.compress(content)[len(_MAGIC) :]
    return _COMPRESSED + frame if len(frame) < len(content) else _PLAIN + content


def unwrap(wrapped: bytes, largest: int) -> bytes:
    """Return the content of wrapped bytes. Raises CodecError when it has more than `largest` bytes.

    A frame must state its content's size, which is compared before anything is unpacked.
    """
    kind, body = wrapped[:1], wrapped[1:]
    if kind == _PLAIN:
        size = len(body)
    elif kind == _COMPRESSED:
        body = _MAGIC + body
        size = _stated_size(body)
    else:
        raise CodecError(f"an encoded head's content is of the unknown kind {kind.hex() or 'none'}")
    if size > largest:
        raise CodecError(f"an encoded head unpacks to {size} bytes, expected at most {largest}")
    return body if kind == _PLAIN else _decompress(body, size)


def _stated_size(frame: bytes) -> int:
    try:
        parameters = zstandard.get_frame_parameters(frame)
    except zstandard.ZstdError as error:
        raise CodecError(f"an encoded head is damaged: {error}") from error
    if parameters.window_size > _WINDOW_LIMIT or parameters.dict_id:
        raise CodecError("an encoded head asks for a larger window or a dictionary")
    return int(parameters.content_size)


def _decompress(frame: bytes, size: int) -> bytes:
    if size == 0:
        raise CodecError("an encoded head holds an empty frame")
    try:
        content = zstandard.ZstdDecompressor().decompress(frame, max_output_size=size, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise CodecError(f"an encoded head is damaged: {error}") from error
    if len(content) != size:
        raise CodecError(f"an encoded head unpacks to {len(content)} bytes, expected {size}")
    return content
