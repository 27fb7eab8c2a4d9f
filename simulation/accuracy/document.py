"""A report as headings, text, tables and figures, written as Markdown or as one self-contained HTML file."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path


@dataclass(frozen=True)
class Heading:
    """A section's title."""

    text: str


@dataclass(frozen=True)
class Text:
    """A paragraph; with `code`, a block of literal text."""

    text: str
    code: bool = False


@dataclass(frozen=True)
class Table:
    """Cells of plain text under headings; the first `words` columns are left-aligned, the others right."""

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: int = 1


@dataclass(frozen=True)
class Figure:
    """An SVG file with a title and what there is to know to read it."""

    path: Path
    title: str
    caption: str


Item = Heading | Text | Table | Figure

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 75rem; margin: 2rem auto; padding: 0 1rem;
  color: #111 }
table { border-collapse: collapse; margin: 1rem 0; font-size: 13px; display: block; overflow-x: auto }
th, td { padding: .25rem .6rem; border-bottom: 1px solid #ccc; text-align: right; white-space: nowrap }
th { border-bottom: 2px solid #111 }
.words { text-align: left }
figure { margin: 1.5rem 0 } figure img { max-width: 100% }
figcaption { font-size: 13px; color: #444 }
pre { background: #f3f3f3; padding: .6rem; overflow-x: auto }
"""


def to_markdown(title: str, items: Sequence[Item], figures: str = "") -> str:
    """Return the document as Markdown; `figures` is put before each figure's file name (`folder/`)."""
    blocks = [f"# {title}"]
    for item in items:
        match item:
            case Heading(text):
                blocks.append(f"## {text}")
            case Text(text, code):
                blocks.append("\n".join(f"    {line}" for line in text.splitlines()) if code else text)
            case Table(headings, rows, words):
                lines = [headings, ["---"] * words + ["---:"] * (len(headings) - words), *rows]
                blocks.append(
                    "\n".join("| " + " | ".join(_cell(cell) for cell in row) + " |" for row in lines)
                )
            case Figure(path, name, caption):
                blocks.append(f"**{name}.** {caption}\n\n![{name}]({figures}{path.name})")
    return "\n\n".join(blocks) + "\n"


def to_html(title: str, items: Sequence[Item]) -> str:
    """Return the document as HTML that needs no other file: figures are inside."""
    blocks = [f"<h1>{escape(title)}</h1>"]
    for item in items:
        match item:
            case Heading(text):
                blocks.append(f"<h2>{escape(text)}</h2>")
            case Text(text, code):
                blocks.append(f"<pre>{escape(text)}</pre>" if code else f"<p>{escape(text)}</p>")
            case Table(headings, rows, words):
                head = _html_row("th", headings, words)
                body = "\n".join(_html_row("td", row, words) for row in rows)
                blocks.append(f"<table><thead>{head}</thead>\n<tbody>{body}</tbody></table>")
            case Figure(path, name, caption):
                data = base64.b64encode(path.read_bytes()).decode()
                blocks.append(
                    f'<figure><img alt="{escape(name)}" src="data:image/svg+xml;base64,{data}">'
                    f"<figcaption><b>{escape(name)}.</b> {escape(caption)}</figcaption></figure>"
                )
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style></head>\n<body>\n" + "\n".join(blocks) + "\n</body></html>\n"
    )


def _html_row(tag: str, cells: Sequence[str], words: int) -> str:
    columns = (
        f"<{tag}{' class=words' if index < words else ''}>{escape(cell)}</{tag}>"
        for index, cell in enumerate(cells)
    )
    return f"<tr>{''.join(columns)}</tr>"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
