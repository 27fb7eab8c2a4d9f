"""Whatever text goes in, no markup comes out of it."""

from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmedclip.protocol.pages.elements import (
    badge,
    button,
    bytes_in_words,
    element,
    facts,
    joined,
    moment,
    table,
)

HOSTILE = st.one_of(
    st.text(),
    st.sampled_from(
        ["</td><script>alert(1)</script>", '" onload="x', "'><img src=x onerror=y>", "&lt;b&gt;", "\x1b[2J",
         "\u202eabc", "\ud800", "a\nb\x00"]
    ),
)  # fmt: skip


class Read(HTMLParser):
    """What a browser would make of it: elements with attributes, and all text together."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.tags, self.attributes, self.text = [], [], ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.text += data


@given(HOSTILE, HOSTILE, HOSTILE)
def test_texts_stay_texts_and_bring_no_element_or_attribute(first, second, third):
    plain = Read(_with_everything("a", "b", "c"))
    found = Read(_with_everything(first, second, third))
    assert found.tags == plain.tags
    assert [name for name, _ in found.attributes] == [name for name, _ in plain.attributes]
    assert found.text.isprintable()
    found.text.encode("utf-8")


def _with_everything(first, second, third):
    return joined(
        [
            table(first, [second, third], [(first, second), (element("b", third), 3)], label=second),
            facts([(first, second), (third, None)]),
            badge("good", third),
            button(
                "do",
                first,
                [("hidden", second)],
                [("name", third, "text")],
                sure=second or "sure",
                optional=[("why", first, "text")],
            ),
            element("span", first, title=second, data_more=third),
        ]
    )


@given(st.floats() | st.integers(min_value=0, max_value=1 << 63))
def test_any_number_is_a_moment_or_said_to_be_none(seconds):
    assert Read(moment(seconds)).tags in (["time"], ["span"])


def test_attributes_that_are_none_or_false_are_not_there():
    assert element("input", type_="text", required=False, value=None) == '<input type="text">'
    assert element("a", "x", aria_label="y", hidden=True) == '<a aria-label="y" hidden>x</a>'


def test_an_empty_table_is_a_sentence():
    assert table("Members", ["a"], []) == '<p class="faint">Members: none.</p>'


def test_what_may_be_left_empty_is_not_required():
    made = button("do", "Do", asked=[("a", "A", "text")], optional=[("b", "B", "text")])
    assert 'name="a" required' in made
    assert 'name="b">' in made


@pytest.mark.parametrize(
    ("number", "words"), [(0, "0 B"), (999, "999 B"), (4200, "4.2 kB"), (1.3e6, "1.3 MB"), (2e9, "2 GB")]
)
def test_bytes_as_a_person_reads_them(number, words):
    assert bytes_in_words(number) == words
