"""The reference of commands, from the same declarations that `--help` prints."""

import re
from collections.abc import Iterator
from html import escape
from typing import Any

import typer.main

from fedmedclip.command import app

PAGE = "reference/commands.md"


def commands_page() -> str:
    """Return the page: each command and sub-command with its usage, arguments and options."""
    parts = [
        "# Commands",
        "Made of the same declarations as `--help`. A mistake that can be mended is one line on standard "
        "error and exit code 2.",
    ]
    for path, command in commands():
        parts.append(_section(path, command))
    return "\n\n".join(parts) + "\n"


def commands() -> Iterator[tuple[str, Any]]:
    """Yield each command's full name (`fedmedclip bundle show`) and declaration, groups before their own."""
    yield from _below("fedmedclip", typer.main.get_command(app))


def _below(path: str, command: Any) -> Iterator[tuple[str, Any]]:
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from _below(f"{path} {name}", inner)


def _section(path: str, command: Any) -> str:
    context = command.context_class(command, info_name=path)
    depth = "#" * (2 + max(0, len(path.split()) - 2))
    parts = [f"{depth} `{path}`", _prose(command.help or "")]
    inner = getattr(command, "commands", {})
    if inner:
        links = ", ".join(f"[`{path} {name}`](#{_anchor(f'{path} {name}')})" for name in inner)
        parts.append(f"Sub-commands: {links}.")
    else:
        parts.append(f"    {' '.join(command.get_usage(context).removeprefix('Usage: ').split())}")
    parts += [_parameter(parameter, context) for parameter in command.params if not _hidden(parameter)]
    return "\n\n".join(parts)


def _parameter(parameter: Any, context: Any) -> str:
    """Return a term with names, kind and default, and its meaning below."""
    option = parameter.param_type_name == "option"
    names = [*parameter.opts, *parameter.secondary_opts] if option else [parameter.make_metavar(context)]
    notes = [_kind(parameter, context)] if option else []
    if parameter.required:
        notes.append("required")
    elif (
        (default := parameter.get_default(context)) is not None
        and not callable(default)
        and not _flag(parameter)
    ):
        notes.append(f"default `{getattr(default, 'value', default)}`")
    term = ", ".join(f"`{name}`" for name in names)
    notes = [note for note in notes if note]
    return f"{term}{': ' if notes else ''}{', '.join(notes)}\n:   {_prose(parameter.help or '')}"


def _kind(parameter: Any, context: Any) -> str:
    """Return what a value is, in words: nothing for a flag."""
    if _flag(parameter):
        return ""
    if choices := getattr(parameter.type, "choices", None):
        return "one of " + ", ".join(f"`{getattr(choice, 'value', choice)}`" for choice in choices)
    words = parameter.make_metavar(context).lower().removesuffix(" range")
    words = {"integer": "whole number", "float": "number", "dir": "folder"}.get(words, words)
    low, high = getattr(parameter.type, "min", None), getattr(parameter.type, "max", None)
    if low is not None:
        words += f" from {low:,}"
    if high is not None:
        words += f" to {high:,}"
    return str(words)


def _flag(parameter: Any) -> bool:
    return bool(getattr(parameter, "is_flag", False))


def _hidden(parameter: Any) -> bool:
    return bool(getattr(parameter, "hidden", False))


def _prose(text: str) -> str:
    """Return help text as Markdown that shows every character as it is."""
    paragraphs = re.split(r"\n\s*\n", text.replace("\b", "").strip())
    return "\n\n".join(_verbatim(" ".join(paragraph.split())) for paragraph in paragraphs)


def _verbatim(text: str) -> str:
    """Escape what HTML and Markdown would take for theirs, outside of code in backticks."""
    pieces = text.split("`")
    for index in range(0, len(pieces), 2):
        pieces[index] = re.sub(r"([*_\[\]])", r"\\\1", escape(pieces[index], quote=False))
    return "`".join(pieces)


def _anchor(path: str) -> str:
    return path.replace(" ", "-")
