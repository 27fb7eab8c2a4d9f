"""A data report as one HTML file that needs no other and asks the network for nothing."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path

from fedmedclip.edge_client.data_report.findings import LIKENESSES, DataFindings
from fedmedclip.edge_client.data_report.gallery import Gallery
from fedmedclip.edge_client.data_report.pairs import Pair
from fedmedclip.edge_client.data_report.survey import Survey
from fedmedclip.edge_client.data_report.tables import (
    how_alike,
    lines_of,
    part_words,
    split_words,
    title_across,
)
from fedmedclip.edge_client.images.split import PARTS
from fedmedclip.protocol.visible import visible

_MOST_SKIPPED = 50

_STYLE = """
:root { color-scheme: light dark; --ink: #1a1a1a; --faint: #555; --paper: #fff; --line: #ccc;
  --shade: #f2f3f5; --alarm: #a40000 }
@media screen and (prefers-color-scheme: dark) {
  :root { --ink: #e6e6e6; --faint: #a8a8a8; --paper: #1a1a1a; --line: #444; --shade: #262626;
    --alarm: #ff9d9d }
}
* { box-sizing: border-box }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 78rem;
  color: var(--ink); background: var(--paper) }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 0 0 1rem; overflow-wrap: anywhere }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .5rem; padding-top: .5rem; border-top: 1px solid var(--line) }
h3 { font-size: 1rem; margin: 1.25rem 0 .25rem; overflow-wrap: anywhere }
p, li { max-width: 52rem; overflow-wrap: anywhere }
.private { border: 2px solid var(--alarm); color: var(--alarm); padding: .6rem .8rem; font-weight: 600;
  max-width: none }
.box { overflow-x: auto }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums }
caption { text-align: left; color: var(--faint); padding: .25rem 0 }
th, td { padding: .3rem .6rem; border-bottom: 1px solid var(--line); text-align: right; vertical-align: top }
thead th { background: var(--shade); vertical-align: bottom }
td { white-space: nowrap }
.words { text-align: left; overflow-wrap: anywhere; white-space: normal; min-width: 8rem }
.pairs { list-style: none; margin: 1rem 0; padding: 0; display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fill, minmax(21rem, 1fr)) }
.pairs > li { border: 1px solid var(--line); padding: .6rem; break-inside: avoid }
.pairs p { margin: 0 0 .4rem; font-size: .9rem }
.row { display: flex; flex-wrap: wrap; gap: .6rem }
figure { margin: 0; width: 9.5rem }
figure img, figure .lost { display: block; width: 9.5rem; height: 9.5rem; object-fit: contain;
  background: #000; color: #fff }
figcaption { font-size: .8rem; overflow-wrap: anywhere }
figcaption b { display: block }
"""

# No script, no picture and no style from anywhere else, whatever a name tries.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def to_html(
    findings: DataFindings,
    survey: Survey,
    gallery: Gallery,
    pictures: Mapping[Path, str],
) -> str:
    """Return the page; `pictures` are data URIs by an image's path. An image without one is only named."""
    shelf = _Shelf(survey, pictures)
    title = f"Images of {findings.data}"
    body = [
        _list(findings.remarks) if findings.remarks else "<p>Nothing stands out.</p>",
        "<h2>Classes</h2>",
        _classes(findings),
        _list(lines_of(findings)),
        *_pairs(
            title_across(findings),
            "Where a copy has two labels one is wrong; where images only look alike it may be. Look at both, "
            "correct or remove one.",
            gallery.across,
            sum(findings.pairs_across.values()),
            shelf,
        ),
        *_pairs(
            "Near-copies and look-alikes in one class",
            "Such images stay in one part of the split. Copies of a file and of its pixels are not shown.",
            gallery.within,
            sum(findings.pairs_within.get(one, 0) for one in LIKENESSES[2:]),
            shelf,
        ),
        *_groups(gallery, shelf),
        *_examples(gallery, findings, shelf),
        *_skipped(findings),
    ]
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<title>{escape(title)}</title>
<style>{_STYLE}</style></head>
<body><main>
<h1>{escape(title)}</h1>
<p class="private" role="note">This page holds images of patients. It stays at this site: do not send it, do \
not copy it, delete it when it has been read.</p>
{chr(10).join(body)}
</main></body></html>
"""


class _Shelf:
    """Figures of the images of a survey."""

    def __init__(self, survey: Survey, pictures: Mapping[Path, str]) -> None:
        self._survey = survey
        self._pictures = pictures

    def figures(self, positions: Iterable[int]) -> str:
        return f'<div class="row">{"".join(map(self._figure, positions))}</div>'

    def _figure(self, position: int) -> str:
        found = self._survey.images[position].image
        label, name = escape(visible(found.label)), escape(visible(found.name))
        if uri := self._pictures.get(found.path):
            picture = f'<img loading="lazy" alt="{label}: {name}" src="{uri}">'
        else:
            picture = '<span class="lost">can no longer be read</span>'
        return f"<figure>{picture}<figcaption><b>{label}</b>{name}</figcaption></figure>"


def _classes(findings: DataFindings) -> str:
    headings = ("class", "images", "different", "groups", "share", *PARTS)
    rows = [
        (
            found.name,
            *(str(number) for number in (found.images, found.different, found.groups)),
            f"{found.share:.1%}",
            *(part_words(found, part) for part in PARTS),
        )
        for found in findings.classes
    ]
    return _table(f"Training, validation, test: {split_words(findings)}", headings, rows)


def _pairs(title: str, advice: str, pairs: Sequence[Pair], count: int, shelf: _Shelf) -> list[str]:
    if not pairs:
        return []
    items = "\n".join(
        f"<li><p>{number}. {escape(how_alike(pair.likeness, pair.correlation))}</p>"
        f"{shelf.figures((pair.first, pair.second))}</li>"
        for number, pair in enumerate(pairs, start=1)
    )
    left_out = f" {count - len(pairs)} more pairs are left out here." if count > len(pairs) else ""
    return [f"<h2>{escape(title)}</h2>", f"<p>{advice}{left_out}</p>", f'<ol class="pairs">{items}</ol>']


def _groups(gallery: Gallery, shelf: _Shelf) -> list[str]:
    if not gallery.groups:
        return []
    blocks = [
        "<h2>Largest groups</h2>",
        f"<p>{len(gallery.groups)} of {gallery.several} groups of several images, the first images of each. "
        "All of a group stay in one part of the split.</p>",
    ]
    for number, group in enumerate(gallery.groups, start=1):
        shown = f", {len(group.shown)} shown" if group.size > len(group.shown) else ""
        heading = f"{number}. {escape(visible(group.name))}: {group.size} images{shown}"
        blocks += [f"<h3>{heading}</h3>", shelf.figures(group.shown)]
    return blocks


def _examples(gallery: Gallery, findings: DataFindings, shelf: _Shelf) -> list[str]:
    present = sum(found.images > 0 for found in findings.classes)
    blocks = ["<h2>Examples of each class</h2>"]
    if present > len(gallery.examples):
        blocks.append(f"<p>{present - len(gallery.examples)} more classes are left out here.</p>")
    for label, positions in gallery.examples.items():
        blocks += [f"<h3>{escape(visible(label))}</h3>", shelf.figures(positions)]
    return blocks


def _skipped(findings: DataFindings) -> list[str]:
    if not findings.skipped:
        return []
    rows = [(found.reason, name) for found in findings.skipped for name in found.files]
    count = sum(found.count for found in findings.skipped)
    left_out = f", {count - _MOST_SKIPPED} more are left out here" if count > _MOST_SKIPPED else ""
    table = _table(
        f"{count} files that cannot be read{left_out}", ("why", "file"), rows[:_MOST_SKIPPED], words=2
    )
    return ["<h2>Skipped</h2>", table]


def _table(caption: str, headings: Sequence[str], rows: Iterable[Sequence[str]], words: int = 1) -> str:
    """Return a table whose first `words` columns are text; the first names its row."""
    head = "".join(
        f'<th scope="col"{" class=words" * (at < words)}>{escape(text)}</th>'
        for at, text in enumerate(headings)
    )
    lines = []
    for first, *others in rows:
        cells = "".join(
            f"<td{' class=words' * (at < words)}>{escape(text)}</td>"
            for at, text in enumerate(others, start=1)
        )
        lines.append(f'<tr><th scope="row" class="words">{escape(first)}</th>{cells}</tr>')
    return (
        f'<div class="box" role="group" tabindex="0" aria-label="Table: {escape(headings[0])}">'
        f"<table><caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _list(lines: Iterable[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>"
