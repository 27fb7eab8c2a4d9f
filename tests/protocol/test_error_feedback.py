import numpy as np

from protocol.codecs.presets import CODECS, decode_head
from protocol.error_feedback import apply_delta, compress, difference
from protocol.head import HeadSpecification, TensorSpecification, head_digest

SPECIFICATION = HeadSpecification((TensorSpecification("weight", (8, 16), initial_bound=1.0),))


def test_what_a_codec_leaves_out_arrives_in_later_rounds():
    generator = np.random.default_rng(3)
    truth = np.zeros((8, 16))
    received = {"weight": np.zeros((8, 16), np.float32)}
    residual = None
    without_feedback = np.zeros((8, 16))
    for _ in range(60):
        delta = {"weight": generator.standard_normal((8, 16)).astype(np.float32)}
        # A tiny constant drift, far below half a scale: it is lost for good unless it is fed back.
        delta["weight"][0, 0] = 20.0
        delta["weight"][0, 1] = 0.01
        truth += delta["weight"]
        without_feedback += compress(CODECS["int8"], delta, None, b"", SPECIFICATION).decoded["weight"]
        compressed = compress(CODECS["int8"], delta, residual, b"", SPECIFICATION)
        residual = compressed.residual
        received = apply_delta(received, decode_head(compressed.encoded, SPECIFICATION))
    assert without_feedback[0, 1] == 0.0
    assert np.abs(received["weight"] - truth).max() < 0.2


def test_a_lossless_codec_leaves_nothing_out():
    head = SPECIFICATION.initial(5)
    compressed = compress(CODECS["lossless"], head, None, b"", SPECIFICATION)
    assert not any(array.any() for array in compressed.residual.values())
    assert head_digest(compressed.decoded) == head_digest(head)


def test_apply_undoes_difference():
    old, new = SPECIFICATION.initial(1), SPECIFICATION.initial(2)
    moved = apply_delta(old, difference(new, old))
    np.testing.assert_allclose(moved["weight"], new["weight"], atol=1e-7)
