import subprocess
import sys

import numpy as np
import pytest

from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.heads.head import head_digest
from fedmedclip.protocol.heads.shared_heads import (
    initial_shared_head,
    known_methods,
    shared_head_specification,
)


def test_fam_has_two_masked_layers():
    shapes = {tensor.name: tensor.shape for tensor in shared_head_specification("fedmedclip", 6).tensors}
    assert shapes == {
        "first.weight": (6, 6),
        "first.bias": (6,),
        "first.threshold": (6,),
        "second.weight": (6, 6),
        "second.bias": (6,),
        "second.threshold": (6,),
    }


def test_initial_values():
    head = initial_shared_head("fedmedclip", 64, 7)
    for name, array in head.items():
        if name.endswith("threshold"):
            assert not array.any()
        else:
            assert np.abs(array).max() <= 1 / 8
    assert np.abs(head["first.weight"]).max() > 0.12
    assert abs(head["first.weight"].mean()) < 0.01


def test_version_0_depends_on_the_seed_alone():
    digest = head_digest(initial_shared_head("fedmedclip", 16, 7))
    assert digest == head_digest(initial_shared_head("fedmedclip", 16, 7))
    assert digest != head_digest(initial_shared_head("fedmedclip", 16, 8))


def test_version_0_is_the_same_in_another_process():
    program = (
        "from fedmedclip.protocol.heads.head import head_digest\n"
        "from fedmedclip.protocol.heads.shared_heads import initial_shared_head\n"
        "print(head_digest(initial_shared_head('fedmedclip', 16, 7)).hex())"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == head_digest(initial_shared_head("fedmedclip", 16, 7)).hex()


@pytest.mark.parametrize("method", known_methods())
def test_each_method_has_distinct_finite_arrays(method):
    specification = shared_head_specification(method, 8, 3)
    names = [tensor.name for tensor in specification.tensors]
    assert len(set(names)) == len(names)
    specification.check(initial_shared_head(method, 8, 0, 3))


def test_unknown_method_names_the_known_ones():
    with pytest.raises(InvalidInputError, match=r"'fedmagic' .known: .*fedmedclip"):
        shared_head_specification("fedmagic", 8)


def test_size_must_be_positive():
    with pytest.raises(InvalidInputError, match="embedding size is 0"):
        shared_head_specification("fedmedclip", 0)
