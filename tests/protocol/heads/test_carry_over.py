"""What of a head goes over into a run with other classes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmedclip.protocol.heads.carry_over import carried_over, class_axes
from fedmedclip.protocol.heads.head import HeadSpecification, TensorSpecification


def arrays(classes):
    return HeadSpecification(
        (
            TensorSpecification("adapter", (4, 4), 1.0),
            TensorSpecification("classifier", (classes, 4), 1.0),
            TensorSpecification("columns", (4, classes), 1.0),
            TensorSpecification("pairs", (classes, classes), 1.0),
        )
    )


AXES = class_axes(arrays)


def test_the_axis_of_classes_is_found_by_their_number():
    assert AXES == {"classifier": 0, "columns": 1}


@given(
    st.lists(st.sampled_from("abcdef"), min_size=1, max_size=6, unique=True),
    st.lists(st.sampled_from("abcdef"), min_size=1, max_size=6, unique=True),
)
def test_rows_stay_with_their_class_and_the_others_begin_as_the_method_says(classes, classes_before):
    first, before = arrays(len(classes)).initial(1), arrays(len(classes_before)).initial(2)
    carried = carried_over(first, before, AXES, classes, classes_before)
    arrays(len(classes)).check(carried.head)
    np.testing.assert_array_equal(carried.head["adapter"], before["adapter"])
    for row, name in enumerate(classes):
        stays = name in classes_before
        source = before["classifier"][classes_before.index(name)] if stays else first["classifier"][row]
        np.testing.assert_array_equal(carried.head["classifier"][row], source)
        column = before["columns"][:, classes_before.index(name)] if stays else first["columns"][:, row]
        np.testing.assert_array_equal(carried.head["columns"][:, row], column)
    assert len(carried.sentences) == 4
    assert first["classifier"].tobytes() == arrays(len(classes)).initial(1)["classifier"].tobytes()


def test_it_says_of_each_array_what_became_of_it():
    first, before = arrays(3).initial(1), arrays(2).initial(2)
    carried = carried_over(first, before | {"adapter": np.zeros((5, 5), np.float32)}, AXES, "abc", "bd")
    assert carried.sentences == (
        "adapter: begins anew, of shape (4, 4) where the run before had (5, 5)",
        "classifier: carried over for b; a, c begins anew; without d",
        "columns: carried over for b; a, c begins anew; without d",
        "pairs: begins anew, of shape (3, 3) where the run before had (2, 2)",
    )
    assert carried.arrays == 2


@pytest.mark.parametrize("before", ["abc", None])
def test_of_the_same_classes_or_unknown_ones_what_has_the_same_shape_stays(before):
    first, earlier = arrays(3).initial(1), arrays(3).initial(2)
    carried = carried_over(first, earlier, AXES, "abc", before)
    assert {name: array.tobytes() for name, array in carried.head.items()} == {
        name: array.tobytes() for name, array in earlier.items()
    }
