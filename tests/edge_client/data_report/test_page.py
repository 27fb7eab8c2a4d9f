"""The page: whatever files are called, it is plain HTML that says what it must and shows what it may."""

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fedmedclip.edge_client.data_report.gallery import MOST_ACROSS, gallery_of
from fedmedclip.edge_client.data_report.page import to_html
from fedmedclip.edge_client.data_report.report import PAGE, findings_on, report_on
from fedmedclip.edge_client.data_report.survey import Survey, SurveyedImage
from fedmedclip.edge_client.data_report.thumbnails import LONGEST_SIDE, thumbnails
from fedmedclip.edge_client.features.extraction import SkippedImage
from fedmedclip.edge_client.images import grouping as grouping_module
from fedmedclip.edge_client.images.dataset import Dataset, LabelledImage
from fedmedclip.edge_client.images.grouping import NamedGroups, group_images
from fedmedclip.edge_client.images.look_alikes import LookAlikes
from fedmedclip.edge_client.images.readers.settings import DEFAULT_READING
from tests.edge_client.data_report.conftest import scan

NAMES = st.text(min_size=1, max_size=20) | st.sampled_from(
    [
        "<script>alert(1)</script>",
        "\" onerror='x'",
        "a\nb",
        "\x1b[31m",
        "\u202egnp",
        "caf\udce9",
        "</style>",
        "&lt;",
    ]
)
TAGS = {
    *(
        "html",
        "head",
        "meta",
        "title",
        "style",
        "body",
        "main",
        "h1",
        "h2",
        "h3",
        "p",
        "ul",
        "ol",
        "li",
        "div",
    ),
    *("table", "caption", "thead", "tbody", "tr", "th", "td", "figure", "img", "span", "figcaption", "b"),
}
ATTRIBUTES = {
    *("lang", "charset", "name", "content", "http-equiv", "class", "role", "tabindex", "aria-label", "scope"),
    *("alt", "src", "loading"),
}


class Page(HTMLParser):
    """Collects what a browser would see."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.images: list[dict[str, str | None]] = []
        self.headings: list[int] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag == "img":
            self.images.append(dict(attrs))
        elif tag != "meta":
            self.open.append(tag)
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def made_up(names: list[str], labels: list[str], skipped: str = "cut.png"):
    """A survey of images that are in no file, each like the next, with its grouping."""
    images = tuple(
        LabelledImage(Path("data") / f"{at}", name, label)
        for at, (name, label) in enumerate(zip(names, labels, strict=True))
    )
    dataset = Dataset(Path("data"), images, 0, ())
    hashes = [at.to_bytes(32, "big") for at in range(len(images))]
    survey = Survey(
        dataset,
        tuple(SurveyedImage(image, key, key) for image, key in zip(images, hashes, strict=True)),
        (SkippedImage(Path("data") / skipped.replace("\0", ""), "truncated"),),
    )
    count = max(0, len(images) - 1)
    alike = LookAlikes(
        np.column_stack([np.arange(count), np.arange(count) + 1]),
        np.linspace(1, 0, count, dtype=np.float32),
        np.linspace(1, 0.9, count, dtype=np.float32),
        np.zeros(count, bool),
        np.arange(count) % 2 == 0,
    )
    nothing = NamedGroups(("",) * len(images), ("",) * len(images))
    return survey, grouping_of(nothing, hashes, alike)


def grouping_of(named, hashes, alike):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grouping_module, "find_look_alikes", lambda _: alike)
        return group_images(named, hashes, None)


def page_of(survey, grouping, pictures=None):
    findings, pairs = findings_on(survey, grouping, None)
    return to_html(findings, survey, gallery_of(survey, pairs, grouping), pictures or {})


@given(names=st.lists(st.tuples(NAMES, NAMES), min_size=1, max_size=8), skipped=NAMES)
@settings(max_examples=150, deadline=None)
def test_no_name_becomes_markup_or_breaks_the_file(names, skipped):
    page = page_of(*made_up([name for name, _ in names], [label for _, label in names], skipped))
    page.encode()
    assert all(character.isprintable() or character == "\n" for character in page)
    seen = Page(page)
    assert not seen.open
    assert seen.tags <= TAGS
    assert seen.attributes <= ATTRIBUTES


def test_a_reader_is_told_first_that_it_stays_here(tmp_path, odd_files):
    report_on(odd_files, None, out=tmp_path / "out")
    page = (tmp_path / "out" / PAGE).read_text(encoding="utf-8")
    seen = Page(page)
    assert seen.text.index("holds images of patients. It stays at this site") < seen.text.index("Classes")
    assert "default-src 'none'" in page
    assert not re.search(r"https?://|url\(|<script|<link", page)
    # Each heading is at most one deeper than the one before, and each picture says what it is.
    assert seen.headings[0] == 1
    assert all(after - before <= 1 for before, after in zip(seen.headings, seen.headings[1:], strict=False))
    assert len(seen.images) > 20
    assert all(re.fullmatch(r"(glioma|healthy): \1/.+", image["alt"] or "") for image in seen.images)
    assert "healthy/brighter.png" in seen.text
    assert "healthy/cut.png" in seen.text


def test_label_errors_come_before_other_pairs():
    page = page_of(*made_up([f"{at}.png" for at in range(6)], ["a", "a", "b", "b", "b", "a"]))
    assert page.index("under two labels: likely label errors") < page.index("alikes in one class")


def test_a_large_page_is_bounded_and_says_what_it_leaves_out():
    count = 5000
    survey, grouping = made_up([f"{at}.png" for at in range(count)], ["a", "b"] * (count // 2))
    pictures = {found.image.path: "data:image/jpeg;base64," for found in survey.images}
    page = page_of(survey, grouping, pictures)
    seen = Page(page)
    assert len(seen.images) < 400
    assert f"{count - 1 - MOST_ACROSS} more pairs are left out here" in seen.text


def test_thumbnails_are_small_and_carry_no_header(tmp_path):
    image = scan(1, 400)
    secret = Image.Exif()
    secret[0x010E] = "Doe^Jane"
    image.save(tmp_path / "a.jpg", exif=secret, comment=b"Doe^Jane")
    (tmp_path / "gone.png").write_bytes(b"")
    made = thumbnails([tmp_path / "a.jpg", tmp_path / "gone.png", tmp_path / "a.jpg"], DEFAULT_READING)
    assert list(made) == [tmp_path / "a.jpg"]
    content = base64.b64decode(made[tmp_path / "a.jpg"].partition(",")[2])
    assert b"Doe" not in content
    with Image.open(io.BytesIO(content)) as small:
        assert max(small.size) == LONGEST_SIDE
