import struct

import pytest

from fedmedclip.protocol.codecs import codec_named, decode_head, encode_head
from fedmedclip.protocol.heads.shared_heads import shared_head_specification
from tests.protocol import independent_decoder
from tests.protocol.codecs.codec_examples import FAM, PRESETS, SMALL, STATISTICS, noise, structured

# More than 16,384 values: symbols of 2 bits lie four to a byte.
LARGER = shared_head_specification("fedmedclip", 100)


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize(
    "specification", [SMALL, FAM, LARGER, STATISTICS], ids=["small", "fam", "larger", "statistics"]
)
def test_a_decoder_written_from_the_text_alone_finds_the_same_bits(name, specification):
    tensors = [
        (tensor.name, tensor.shape, *(["symmetric"] if tensor.symmetric else []))
        for tensor in specification.tensors
    ]
    masked = noise(specification, 3)
    for array in masked.values():
        if array.ndim:
            array[1:3] = 0
    for delta in (noise(specification, 1, 1e-3), structured(specification, 2), masked):
        data = encode_head(codec_named(name), delta, specification).data
        theirs = independent_decoder.decode_head(data, tensors)
        for array_name, array in decode_head(data, specification).items():
            _, values = theirs[array_name]
            assert struct.pack(f"<{len(values)}f", *values) == array.astype("<f4").tobytes(), array_name
