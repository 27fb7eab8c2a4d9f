"""What a report says first, and that its page can be found one's way in, on any screen."""

import platform
import re
from html.parser import HTMLParser
from types import SimpleNamespace

import pytest

from fedmedclip import __version__
from fedmedclip.simulation.accuracy.document import Figure, Heading, Table, Text, to_markdown
from fedmedclip.simulation.accuracy.evidence import SITES
from fedmedclip.simulation.accuracy.origin import origin
from fedmedclip.simulation.accuracy.page import to_html
from fedmedclip.simulation.accuracy.significance import Comparison
from fedmedclip.simulation.accuracy.verdict import verdict
from fedmedclip.simulation.federation.folder import GLOBAL_TEST

VOID = {"meta", "img", "br", "hr"}


class Page(HTMLParser):
    """The elements of a page as (name, attributes, names of what they stand in), and that each is closed."""

    def __init__(self, html):
        super().__init__()
        self.elements, self._open = [], []
        self.feed(html)
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs), list(self._open)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def all(self, wanted):
        return [attributes for tag, attributes, _ in self.elements if tag == wanted]


@pytest.fixture
def figure(tmp_path):
    path = tmp_path / "plot.svg"
    path.write_text("<?xml version='1.0'?><svg/>")
    return Figure(path, "Plot", "All.")


@pytest.fixture
def page(figure):
    items = [
        Text("One is better.", lead=True), Text("fedmedclip --some options", code=True),
        Heading("Every score"), Table(["", "b"], [["p", "1"]]), figure,
        Heading("Every score"), Heading("µ"), Text("The end."),
    ]  # fmt: skip
    return Page(to_html("Title", items))


def test_the_contents_lead_to_every_section(page):
    links = [attributes["href"] for attributes in page.all("a")]
    assert links == ["#every-score", "#every-score-2", "#section"]
    assert links == [f"#{attributes['id']}" for attributes in page.all("section")]
    assert all(inside[:3] == ["html", "body", "nav"] for tag, _, inside in page.elements if tag == "a")


def test_the_verdict_comes_before_the_contents(page):
    names = [tag for tag, _, _ in page.elements]
    lead = next(i for i, (_, attributes, _) in enumerate(page.elements) if attributes.get("class") == "lead")
    assert names.index("h1") < lead < names.index("nav") < names.index("main")


def test_a_page_fits_small_screens_the_night_and_paper(page, figure):
    named = {
        attributes["name"]: attributes["content"] for attributes in page.all("meta") if "name" in attributes
    }
    assert named == {"viewport": "width=device-width, initial-scale=1", "color-scheme": "light dark"}
    style = to_html("Title", []).partition("<style>")[2].partition("</style>")[0]
    assert {"screen and (prefers-color-scheme: dark)", "print"} <= set(re.findall(r"@media (.*?) {", style))
    # What is wide scrolls in a box of its own, which the keyboard reaches.
    for tag, _, inside in page.elements:
        if tag in ("table", "img"):
            assert inside[-1] == "div"
    boxes = [attributes for attributes in page.all("div") if attributes.get("class") == "box"]
    assert len(boxes) == 2
    assert all(box["tabindex"] == "0" and box["aria-label"] for box in boxes)
    assert re.search(r"\.box {[^}]*overflow-x: auto", style)


def test_a_document_escapes_what_its_formats_mean_by_it(figure):
    items = [Heading("A & B"), Text("x < y"), Text("one\ntwo", code=True), Table(["a", "b"], [["p|q", "1"]]),
             figure]  # fmt: skip
    markdown = to_markdown("Title", items, figures="figures/")
    assert "## A & B\n\nx < y\n\n    one\n    two\n\n| a | b |\n| --- | ---: |\n| p\\|q | 1 |" in markdown
    assert "![Plot](figures/plot.svg)" in markdown
    html = to_html("Title", items)
    assert "<h2>A &amp; B</h2>\n<p>x &lt; y</p>\n<pre>one\ntwo</pre>" in html
    assert "data:image/svg+xml;base64," in html


def compared(**found):
    """Stand for a report's content with comparisons by test set, from label to (points, low, high, p)."""
    comparisons = {
        test_set: {
            label: Comparison(points / 100, low / 100, high / 100, 1, 1, 50, p, p)
            for label, (points, low, high, p) in of_set.items()
        }
        for test_set, of_set in found.items()
    }
    reference = SimpleNamespace(label="ours", headline=lambda test_set: SimpleNamespace(mean=0.934))
    return SimpleNamespace(reference="ours", comparisons=comparisons, methods=[reference], chosen_here=())


def test_the_verdict_counts_what_the_paired_tests_show_and_gives_the_interval_of_the_best():
    others = {
        "a": (-8, -10, -6, 0.001),
        "b": (3.04, 0.8, 5.2, 0.04),
        "c": (1, -1, 3, 0.2),
        "d": (-9, -19, 1, 0.05),
    }
    first, second = verdict(compared(**{SITES: others, GLOBAL_TEST: {"a": (-2, -4, -1, 0.01)}}))
    assert first == (
        "On the sites' tests ours is better than 1 of the 4 other methods, worse than 1, and not shown to "
        "differ from 2; the most accurate other one, b, differs from it by +3.0 points of accuracy "
        "(95 % interval +0.8 to +5.2, 50 groups of images)."
    )
    assert second.startswith("On the global test ours is better than a, which differs from it by -2.0 points")


def test_no_difference_shown_is_not_called_one():
    (sentence,) = verdict(compared(**{SITES: {"a": (4, -1, 9, 0.2), "b": (-4, -9, 1, 0.2)}}))
    assert (
        "better than none of the 2 other methods, worse than none, and not shown to differ from 2" in sentence
    )
    (alone,) = verdict(compared(**{SITES: {"a": (4, -1, 9, 0.2)}}))
    assert "ours is not shown to differ from a" in alone


def test_without_another_method_nothing_is_claimed():
    assert verdict(compared(**{SITES: {}})) == [
        "ours is right on 93.4 % of the sites' tests, and was compared with no other method."
    ]


def test_where_a_report_comes_from_is_said_without_the_name_of_the_machine():
    sentence = origin().sentence()
    assert f"fedmedclip {__version__} with Python {platform.python_version()} on " in sentence
    assert re.search(r"\d+ cores?\b.*; \d{4}-\d\d-\d\d \d\d:\d\d UTC\.$", sentence)
    assert platform.node() not in re.split(r"\W", sentence)
