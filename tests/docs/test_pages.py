"""The pages that people write: they name what exists, and the glossary has each word once."""

import re
from pathlib import Path

import pytest

from tests import ROOT

PAGES = sorted((ROOT / "docs").rglob("*.md"))
TEXTS = sorted(
    file
    for place in (
        "aggregator",
        "benchmarks",
        "configs",
        "deploy",
        "docs",
        "edge_client",
        "export",
        "fedmedclip",
        "protocol",
        "simulation",
        "tests",
    )
    for file in (ROOT / place).rglob("*")
    if file.suffix in {".md", ".mjs", ".py", ".toml", ".yaml"}
) + [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "mkdocs.yml")]


def test_every_page_that_a_file_names_exists():
    missing = {
        f"{file.relative_to(ROOT)}: {path}"
        for file in TEXTS
        for path in re.findall(r"\bdocs/[\w/-]+\.(?:md|yaml|json)\b", file.read_text(encoding="utf-8"))
        if not (ROOT / path).exists() and "NAME" not in path
    }
    assert missing == set()


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_links_from_the_front_pages_lead_somewhere(name):
    links = re.findall(r"\]\(([^)#]+)", (ROOT / name).read_text(encoding="utf-8"))
    assert [link for link in links if "://" not in link and not (ROOT / link).exists()] == []


def test_every_page_is_in_the_navigation_of_the_site():
    """The strict build of the site says so, too, but only at the end of a long run."""
    in_navigation = set(re.findall(r"[\w/-]+\.md", (ROOT / "mkdocs.yml").read_text(encoding="utf-8")))
    pages = {page.relative_to(ROOT / "docs").as_posix() for page in PAGES}
    assert pages - in_navigation == set()


def test_links_between_pages_stay_in_the_site_and_lead_somewhere():
    generated = {"commands.md", "configuration.md", "python.md", "log-events.md"}
    astray = {
        f"{page.relative_to(ROOT)}: {link}"
        for page in PAGES
        for link in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))
        if "://" not in link
        and Path(link).name not in generated
        and not ((target := (page.parent / link).resolve()).exists() and target.is_relative_to(ROOT / "docs"))
    }
    assert astray == set()


def test_every_figure_has_words_for_who_cannot_see_it():
    without = [
        page.name for page in PAGES if re.search(r"!\[\s*\]\(|<img(?![^>]*alt=\"\w)", page.read_text())
    ]
    assert without == []


def test_the_glossary_has_each_word_once_in_order_and_explained():
    text = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    words = re.findall(r"^(\S.*)\n:   \S", text, re.MULTILINE)
    assert len(words) > 30
    assert words == sorted(set(words))
    assert len(words) == text.count("\n:   ")
