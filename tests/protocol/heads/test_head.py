import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmedclip.protocol.errors import HeadError
from fedmedclip.protocol.heads.head import HeadSpecification, TensorSpecification, head_digest
from fedmedclip.protocol.seeds import derive_seed

SPECIFICATION = HeadSpecification(
    (
        TensorSpecification("weight", (4, 3), initial_bound=0.5),
        TensorSpecification("scale", (4,), initial_value=1.0),
    )
)


def test_version_0_is_the_same_bits_everywhere():
    # The digest was computed on x86-64 with numpy 2.4; any machine must find the same.
    digest = head_digest(SPECIFICATION.initial(7))
    assert digest.hex() == "6faa890bdc0d102351db1b689ab07a55f88f16e11633c39efeea73015c322c4d"


def test_version_0_is_uniform_within_its_bound():
    specification = HeadSpecification((TensorSpecification("weight", (200, 200), initial_bound=0.25),))
    values = specification.initial(1)["weight"]
    assert values.dtype == np.float32
    assert -0.25 <= values.min() < -0.249
    assert 0.249 < values.max() < 0.25
    assert abs(float(values.mean())) < 0.002


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda head: head.pop("scale"), "expected \\['scale', 'weight'\\]"),
        (lambda head: head.update(extra=np.zeros(1, np.float32)), "extra"),
        (lambda head: head.update(weight=np.zeros((3, 4), np.float32)), "expected float32 \\(4, 3\\)"),
        (lambda head: head.update(weight=np.zeros((4, 3))), "float64"),
        (lambda head: head["weight"].fill(np.nan), "NaN"),
    ],
)
def test_heads_that_do_not_match_are_refused(change, message):
    head = SPECIFICATION.initial(1)
    change(head)
    with pytest.raises(HeadError, match=message):
        SPECIFICATION.check(head)


def test_storage_keeps_every_bit_and_refuses_another_length():
    head = SPECIFICATION.initial(3)
    stored = SPECIFICATION.to_bytes(head)
    assert head_digest(SPECIFICATION.from_bytes(stored)) == head_digest(head)
    with pytest.raises(HeadError, match="63 bytes, expected 64"):
        SPECIFICATION.from_bytes(stored[:-1])


def test_the_digest_sees_values_names_and_shapes():
    head = SPECIFICATION.initial(3)
    digests = {
        head_digest(head),
        head_digest({**head, "weight": head["weight"].reshape(3, 4)}),
        head_digest({"Weight": head["weight"], "scale": head["scale"]}),
        head_digest({**head, "weight": np.nextafter(head["weight"], np.float32(1))}),
    }
    assert len(digests) == 4
    assert head_digest({"a": np.float32(1).reshape(())}) != head_digest({"a": np.ones(1, np.float32)})
    assert head_digest(dict(reversed(head.items()))) == head_digest(head)


@given(st.text(), st.text(), st.text(), st.text())
def test_seeds_of_different_draws_differ(site, purpose, other_site, other_purpose):
    one = derive_seed(1, site=site, purpose=purpose)
    other = derive_seed(1, site=other_site, purpose=other_purpose)
    assert (one == other) == ((site, purpose) == (other_site, other_purpose))
    assert 0 <= one < 2**63
