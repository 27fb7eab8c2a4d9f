"""Names that others chose stand in one line, and in a cell, whatever they hold."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmedclip.protocol.csv_cells import path_cell, path_of, text_cell, text_of
from fedmedclip.protocol.errors import MessageError
from fedmedclip.protocol.visible import LONGEST_LINE, is_utf8, visible

ANY_NAME = st.binary(max_size=30).map(os.fsdecode) | st.text(max_size=30) | st.text("./'=+-@\t1", max_size=8)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("Müller 腫瘍.png", "Müller 腫瘍.png"),
        ("a\nWARNING b", r"a\nWARNING b"),
        ("\x1b[2J", r"\x1b[2J"),
        ("a\u202eb\u2028c\x85", r"a\u202eb\u2028c\x85"),
        (os.fsdecode(b"caf\xe9"), r"caf\xe9"),
    ],
)
def test_what_is_printable_stays_and_the_rest_is_escaped(name: str, shown: str) -> None:
    assert visible(name) == shown


@given(ANY_NAME)
def test_every_name_becomes_one_printable_line_of_utf8(name: str) -> None:
    assert visible(name).isprintable()
    assert is_utf8(visible(name))
    assert visible(visible(name)) == visible(name)


@given(st.text(max_size=12), st.integers(0, 3000))
def test_an_error_is_one_line_of_bounded_length_whatever_it_quotes(text: str, times: int) -> None:
    line = str(MessageError(f"a message on {text * times} is refused; send another"))
    assert line.isprintable()
    assert len(line) <= LONGEST_LINE
    assert line.startswith("a message on ")
    assert line.endswith("is refused; send another")


@given(ANY_NAME)
def test_no_cell_begins_a_formula_and_what_it_stands_for_is_known(name: str) -> None:
    assert path_of(path_cell(name)) == name
    assert text_of(text_cell(name)) == name
    assert not path_cell(name).startswith(("=", "+", "-", "@", "\t", "\r", "＝"))
    if not name.lstrip("+-").replace(".", "").replace(",", "").isdecimal():
        assert not text_cell(name).startswith(("=", "+", "-", "@", "\t", "\r"))
    assert os.path.normpath(path_cell(name)) == os.path.normpath(name)


def test_a_number_stays_a_number() -> None:
    assert [text_cell(text) for text in ("-1", "+2.5", "-1+1", "+ve")] == ["-1", "+2.5", "'-1+1", "'+ve"]
