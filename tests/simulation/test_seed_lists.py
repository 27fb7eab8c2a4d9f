"""Seeds as a person types them."""

import pytest

from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.simulation.seed_lists import parse_seeds


def test_each_seed_once_in_its_order() -> None:
    assert parse_seeds("2, 0,1,2") == [2, 0, 1]


@pytest.mark.parametrize("text", ["", "1,", "-1", "1_0", "1.0", "²", "a", "9" * 5000, "9223372036854775808"])
def test_anything_else_is_one_line(text: str) -> None:
    with pytest.raises(InvalidInputError, match="--seeds") as caught:
        parse_seeds(text)
    assert len(str(caught.value)) < 250
