"""A report as headings, text, tables and figures, and as Markdown; `page.py` makes HTML of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Heading:
    """A section's title."""

    text: str


@dataclass(frozen=True)
class Text:
    """A paragraph; with `code`, a block of literal text; with `lead`, what the whole report says."""

    text: str
    code: bool = False
    lead: bool = False


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


def to_markdown(title: str, items: Sequence[Item], figures: str = "") -> str:
    """Return the document as Markdown; `figures` is put before each figure's file name (`folder/`)."""
    blocks = [f"# {title}"]
    for item in items:
        match item:
            case Heading(text):
                blocks.append(f"## {text}")
            case Text(text, code=True):
                blocks.append("\n".join(f"    {line}" for line in text.splitlines()))
            case Text(text, lead=lead):
                blocks.append(f"**{text}**" if lead else text)
            case Table(headings, rows, words):
                lines = [headings, ["---"] * words + ["---:"] * (len(headings) - words), *rows]
                blocks.append(
                    "\n".join("| " + " | ".join(_cell(cell) for cell in row) + " |" for row in lines)
                )
            case Figure(path, name, caption):
                blocks.append(f"**{name}.** {caption}\n\n![{name}]({figures}{path.name})")
    return "\n\n".join(blocks) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
