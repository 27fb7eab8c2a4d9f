"""A report as one HTML file that needs no other: contents, sections, a style for screens and for paper."""

import base64
import re
from collections.abc import Iterable, Sequence
from html import escape

from fedmedclip.simulation.accuracy.document import Figure, Heading, Item, Table, Text

# Figures are drawn for white paper. By night an inversion gives them the page's #1a1a1a; their hues stay.
_STYLE = """
:root { color-scheme: light dark; --ink: #1a1a1a; --faint: #555; --paper: #fff; --line: #ccc;
  --shade: #f2f3f5; --link: #0b5cad }
@media screen and (prefers-color-scheme: dark) {
  :root { --ink: #e6e6e6; --faint: #a8a8a8; --paper: #1a1a1a; --line: #444;
    --shade: #262626; --link: #7db8f0 }
  figure img { filter: invert(.9) hue-rotate(180deg) }
}
* { box-sizing: border-box }
body { font: 16px/1.55 system-ui, sans-serif; margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 120rem;
  color: var(--ink); background: var(--paper) }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 1rem }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .75rem; padding-top: .5rem; border-top: 1px solid var(--line) }
p, pre, ul { max-width: 48rem }
p { margin: 0 0 .9rem; overflow-wrap: break-word }
a { color: var(--link) }
section { scroll-margin-top: 1rem }
.lead { font-size: 1.15rem; padding-left: .8rem; border-left: 4px solid var(--link) }
nav h2 { font-size: 1rem; border: 0; margin: 1.5rem 0 .25rem; padding: 0 }
nav ul { margin: 0; padding: 0; list-style: none; columns: 15rem }
nav a { display: block; padding: .2rem 0 }
.box { overflow-x: auto; margin: 1rem 0; border: 1px solid var(--line); max-width: max-content }
.box:focus-visible { outline: 2px solid var(--link) }
table { border-collapse: separate; border-spacing: 0; font-size: .85rem; font-variant-numeric: tabular-nums }
th, td { padding: .3rem .6rem; border-bottom: 1px solid var(--line); text-align: right }
td { background: var(--paper) }
td { white-space: nowrap }
th { vertical-align: bottom; background: var(--shade) }
tbody tr:last-child > * { border-bottom: 0 }
.words { text-align: left }
th:first-child, td:first-child { position: sticky; left: 0; max-width: 45vw; white-space: normal;
  border-right: 1px solid var(--line) }
figure { margin: 1.5rem 0; max-width: 75rem }
figure .box { border: 0; max-width: none; margin: 0 0 .25rem }
figure img { display: block; max-width: 100%; min-width: 36rem; height: auto }
figcaption { font-size: .9rem; color: var(--faint); max-width: 48rem }
pre { font-size: .85rem; background: var(--shade); padding: .6rem; white-space: pre-wrap;
  overflow-wrap: anywhere }
@media (min-width: 80rem) {
  body { display: grid; grid-template-columns: 15rem minmax(0, 1fr); column-gap: 2.5rem; padding-top: 2.5rem;
    grid-template-rows: auto 1fr }
  header, main { grid-column: 2 }
  nav { grid-column: 1; grid-row: 1 / span 2; position: sticky; top: 1rem; align-self: start }
  nav h2 { margin-top: 0 }
  nav ul { columns: auto }
}
@media print {
  :root { color-scheme: light }
  @page { size: A4 landscape; margin: 12mm }
  body { display: block; font-size: 10pt; padding: 0; max-width: none }
  nav { display: none }
  .box { overflow: visible; border: 0 }
  table { font-size: 7.5pt }
  th, td { padding: .1rem .3rem; position: static !important; white-space: normal }
  h2, thead { break-after: avoid }
  tr, figure, pre { break-inside: avoid }
  figure img { min-width: 0; max-height: 150mm }
}
"""


def to_html(title: str, items: Sequence[Item]) -> str:
    """Return the document as HTML that needs no other file: figures are inside, and there is no script.

    What stands before the first heading comes first, then a list of contents, then a section for each.
    """
    first = next((index for index, item in enumerate(items) if isinstance(item, Heading)), len(items))
    preface, sections = items[:first], _sections(items[first:])
    contents = "\n".join(
        f'<li><a href="#{identifier}">{escape(found[0].text)}</a></li>'
        for identifier, found in sections
        if isinstance(found[0], Heading)
    )
    body = "\n".join(
        f'<section id="{identifier}">\n{_blocks(found)}\n</section>' for identifier, found in sections
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(title)}</title>
<style>{_STYLE}</style></head>
<body>
<header>
<h1>{escape(title)}</h1>
{_blocks(preface)}
</header>
<nav aria-label="Contents"><h2>Contents</h2>
<ul>
{contents}
</ul></nav>
<main>
{body}
</main>
</body></html>
"""


def _sections(items: Sequence[Item]) -> list[tuple[str, list[Item]]]:
    """Return each heading with what follows it, under an identifier of its own."""
    sections: list[tuple[str, list[Item]]] = []
    for item in items:
        if isinstance(item, Heading):
            sections.append((_identifier(item.text, [name for name, _ in sections]), [item]))
        else:
            sections[-1][1].append(item)
    return sections


def _identifier(text: str, taken: Sequence[str]) -> str:
    words = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "section"
    numbered = (f"{words}-{number}" for number in range(2, len(taken) + 2))
    return next(name for name in (words, *numbered) if name not in taken)


def _blocks(items: Iterable[Item]) -> str:
    return "\n".join(map(_block, items))


def _block(item: Item) -> str:
    match item:
        case Heading(text):
            return f"<h2>{escape(text)}</h2>"
        case Text(text, code=True):
            return f"<pre>{escape(text)}</pre>"
        case Text(text, lead=lead):
            return f"<p{' class=lead' * lead}>{escape(text)}</p>"
        case Table(headings, rows, words):
            head = _row("th", headings, words)
            body = "\n".join(_row("td", row, words) for row in rows)
            table = f"<table><thead>{head}</thead>\n<tbody>{body}</tbody></table>"
            return _box(f"Table: {headings[0]}", table)
        case Figure(path, name, caption):
            data = base64.b64encode(path.read_bytes()).decode()
            image = f'<img alt="{escape(name)}" src="data:image/svg+xml;base64,{data}">'
            explained = f"<figcaption><b>{escape(name)}.</b> {escape(caption)}</figcaption>"
            return f"<figure>{_box(f'Figure: {name}', image)}{explained}</figure>"


def _box(name: str, content: str) -> str:
    """Return something wide in a box that scrolls by itself, also with the keyboard."""
    return f'<div class="box" role="group" tabindex="0" aria-label="{escape(name)}">{content}</div>'


def _row(tag: str, cells: Sequence[str], words: int) -> str:
    scope = ' scope="col"' if tag == "th" else ""
    columns = (
        f"<{tag}{scope}{' class=words' if index < words else ''}>{escape(cell)}</{tag}>"
        for index, cell in enumerate(cells)
    )
    return f"<tr>{''.join(columns)}</tr>"
