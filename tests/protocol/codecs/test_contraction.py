"""What a codec leaves out has less energy than what there was to send: so residuals stay bounded."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from fedmedclip.protocol.codecs import Encoded, codec_named, decode_head, encode_head
from fedmedclip.protocol.codecs.contraction import energy, energy_of
from fedmedclip.protocol.codecs.error_feedback import compress
from fedmedclip.protocol.heads.head import HeadSpecification, TensorSpecification
from fedmedclip.protocol.heads.shared_heads import shared_head_specification
from tests.protocol.codecs.codec_examples import PRESETS, noise, of_its_kind

METHODS = ["fedmedclip", "facmic", "whitened-memory", "linear-probe"]
DELTA_CODECS = [name for name in PRESETS if name != "paper-fp16-zlib"]
LOW_RANK = [
    "lowrank", "lowrank:rank=1", "lowrank:rank=2,bits=2", "lowrank:rank=64,bits=3", "lowrank:rank=8,bits=4",
    "lowrank:rank=3,bits=8", "auto:bytes=256", "auto:bytes=400", "auto:bytes=1460",
]  # fmt: skip
CODECS = list(dict.fromkeys(DELTA_CODECS + LOW_RANK))


def _huge_row(shape, generator):
    values = generator.standard_normal(shape)
    values[0] *= 3e3
    return values


def _one_hot(shape, generator):
    values = np.zeros(shape)
    values.flat[generator.integers(values.size)] = 3.0
    return values


def _alternating(shape, generator):
    return np.where(np.arange(np.prod(shape, dtype=int)) % 2, -0.5, 0.5).reshape(shape)


def _tiny_next_to_huge(shape, generator):
    return generator.standard_normal(shape) * 10.0 ** generator.integers(-8, 4, shape)


def _nearly_dependent(shape, generator):
    return np.ones(shape) + 1e-4 * generator.standard_normal(shape)


KINDS = {
    "noise": lambda shape, generator: generator.standard_normal(shape),
    "zero": lambda shape, generator: np.zeros(shape),
    "equal": lambda shape, generator: np.full(shape, 0.25),
    "huge row": _huge_row,
    "one hot": _one_hot,
    "alternating": _alternating,
    "tiny next to huge": _tiny_next_to_huge,
    "nearly dependent": _nearly_dependent,
}


def made(specification, kinds, seed):
    """Return arrays of the given kinds in turn."""
    generator = np.random.default_rng(seed)
    return {
        tensor.name: of_its_kind(
            tensor,
            np.asarray(
                KINDS[kinds[number % len(kinds)]](tensor.shape or (1,), generator), np.float32
            ).reshape(tensor.shape),
        )
        for number, tensor in enumerate(specification.tensors)
    }


@st.composite
def specifications(draw):
    """Matrices of 1 to 40 rows and columns, with vectors that ride along, alone or measured."""
    tensors = []
    for number in range(draw(st.integers(1, 2))):
        rows, columns = draw(st.integers(1, 40)), draw(st.integers(1, 40))
        tensors.append(TensorSpecification(f"{number}.matrix", (rows, columns)))
        vectors = draw(st.integers(0, 2))
        tensors += [TensorSpecification(f"{number}.vector{other}", (rows,)) for other in range(vectors)]
        if draw(st.booleans()):
            tensors.append(TensorSpecification(f"{number}.square", (columns, columns), symmetric=True))
    alone = draw(st.integers(1, 50))
    return HeadSpecification((*tensors, TensorSpecification("alone", (alone,), measured=draw(st.booleans()))))


def smallest_said(name):
    """Return the largest value that a codec may leave out as if it were zero."""
    if name in ("auto:bytes=256", "auto:bytes=400", "moments:bytes=400"):
        return np.inf  # So small a budget may hold nothing of a head.
    return 2.0**-24 if name == "fp16" else 2.0**-60


@given(
    specifications(),
    st.sampled_from(CODECS),
    st.lists(st.sampled_from(sorted(KINDS)), min_size=1, max_size=5),
    st.integers(0, 2**32 - 1),
)
@example(shared_head_specification("fedmedclip", 16), "lowrank", ["noise"], 0)
@example(shared_head_specification("fedmedclip", 64), "lowrank", ["equal"], 0)
@example(shared_head_specification("facmic", 24, 3), "lowrank", ["noise", "huge row"], 1)
@example(  # the drawn start of the search is orthogonal to the only row
    HeadSpecification((TensorSpecification("matrix", (1, 4)),)), "lowrank", ["alternating"], 0
)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_every_codec_contracts_whatever_it_is_given(specification, name, kinds, seed):
    codec, memory = codec_named(name), b""
    wanted = made(specification, kinds, seed)
    for _ in range(4):
        encoded = encode_head(codec, wanted, specification, memory)
        decoded = decode_head(encoded.data, specification)
        left = {key: wanted[key] - decoded[key] for key in wanted}
        before, after = energy_of(wanted), energy_of(left)
        assert after <= before
        if max(np.abs(array).max() for array in wanted.values()) > smallest_said(name):
            assert after < before
        # What a round leaves out is all that the next one gets, and may be anything.
        wanted, memory = left, encoded.memory


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size"),
    [
        *(("lowrank", size) for size in (8, 16, 24, 64)),
        ("lowrank:rank=2,bits=2", 16),
        ("auto:bytes=400", 24),
        pytest.param("moments:bytes=300", 8, marks=pytest.mark.slow),
        ("sign", 24),
        ("topk", 24),
    ],
)
@pytest.mark.parametrize("method", METHODS)
def test_residuals_stay_bounded_over_many_rounds(name, method, size):
    specification = shared_head_specification(method, size, 3)
    codec, residual, memory, norms = codec_named(name), None, b"", []
    for number in range(70):
        compressed = compress(codec, noise(specification, number, 0.1), residual, memory, specification)
        residual, memory = compressed.residual, compressed.memory
        assert compressed.left_out_norm < compressed.wanted_norm
        norms.append(compressed.left_out_norm)
    # A walk of 70 steps of this size, nothing of which is ever sent, is twice as long as one of 17.
    assert max(norms[35:]) < 1.5 * max(norms[:35])


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("name", ["lowrank", "auto:bytes=1460", "moments"])
def test_a_lasting_difference_arrives_at_full_size(name, kind):
    """256 x 256: one difference is to be sent, again and again what is missing of it."""
    specification = shared_head_specification("fedmedclip", 256)
    codec, memory = codec_named(name), b""
    wanted = made(specification, [kind, "noise"], 1)
    energies = [energy_of(wanted)]
    for _ in range(6):
        encoded = encode_head(codec, wanted, specification, memory)
        decoded = decode_head(encoded.data, specification)
        wanted = {key: wanted[key] - decoded[key] for key in wanted}
        memory = encoded.memory
        energies.append(energy_of(wanted))
    assert all(later < earlier for earlier, later in pairwise(energies))


@pytest.mark.parametrize("shape", [(0,), (1,), (300, 200)])
@pytest.mark.parametrize("scale", [1e-44, 1e-20, 1.0, 1e30])
def test_energy_is_the_sum_of_squares_in_any_order(shape, scale):
    values = (scale * np.random.default_rng(0).standard_normal(shape)).astype(np.float32)
    assert energy(values) == pytest.approx(float((values.astype(float) ** 2).sum()), rel=1e-3)
    assert energy(values) == energy(np.sort(values.reshape(-1))[::-1])


@dataclass(frozen=True)
class Threefold:
    """A codec from elsewhere: it sends three times what there is."""

    name = "threefold"
    lossless = False
    whole_head = False
    carry = 1.0

    def encode(self, arrays, specification, memory):
        """See `Codec.encode`."""
        larger = {key: np.float32(3) * array for key, array in arrays.items()}
        data = encode_head(codec_named("int8"), larger, specification).data
        return Encoded(data, b"its own")


def test_a_codec_from_elsewhere_that_would_grow_is_replaced(caplog):
    specification = shared_head_specification("fedmedclip", 16)
    compressed = compress(Threefold(), noise(specification), None, b"", specification)
    assert compressed.residual_share < 0.01
    assert compressed.memory == b"its own"
    assert "threefold leaves out more than there is" in caplog.text
