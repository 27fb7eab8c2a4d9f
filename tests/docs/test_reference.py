"""The references that are made of the code leave out no command, option, table or setting."""

import re

import msgspec
import pytest
from typer.testing import CliRunner

from docs.generators.commands import commands, commands_page
from docs.generators.configuration import FILES, FLAT_FILES, configuration_page, tables
from docs.generators.python_api import packages, python_page
from fedmedclip.command import app
from tests import ROOT


def section(page, heading):
    """Return the text of a page from a heading to the next of its depth or above."""
    depth = len(heading) - len(heading.lstrip("#"))
    return re.split(rf"\n#{{1,{depth}}} ", page.partition(f"\n{heading}")[2])[0]


@pytest.mark.parametrize("path", [path for path, _ in commands()])
def test_every_option_that_help_prints_is_in_the_reference(path):
    arguments = [*path.split()[1:], "--help"]
    printed = CliRunner().invoke(app, arguments, env={"COLUMNS": "200", "TERMINAL_WIDTH": "200"})
    assert printed.exit_code == 0
    options = set(re.findall(r"│ \*?\s*(--[a-z-]+)", printed.output)) - {"--help"}
    names = set(re.findall(r"│ ([a-z]+) ", printed.output.partition("Commands ─")[2]))
    described = section(commands_page(), f"{'###' if len(arguments) > 2 else '##'} `{path}`")
    assert {option for option in options if f"\n`{option}`" not in described} == set()
    assert {name for name in names if f"[`{path} {name}`]" not in described} == set()
    assert options or names or "Arguments" in printed.output


def test_every_file_that_is_read_as_configuration_is_in_the_reference():
    folders = ("aggregator", "edge_client", "export", "simulation", "fedmedclip")
    files = [file for folder in folders for file in (ROOT / folder).rglob("*.py")]
    read = {
        structure
        for file in files
        for structure in re.findall(r"read_configuration\([^()]+, (\w+)\)", file.read_text())
    }
    assert read == {structure.__name__ for structure in (*FILES.values(), *FLAT_FILES.values())}


@pytest.mark.parametrize("file", FLAT_FILES)
def test_every_setting_of_a_file_without_tables_has_a_meaning(file):
    described = section(configuration_page(), f"## `{file}`")
    rows = [row.strip("| ").split(" | ") for row in re.findall(r"^\| `.*$", described, re.MULTILINE)]
    names = {field.encode_name for field in msgspec.structs.fields(FLAT_FILES[file])}
    assert {row[0].strip("`") for row in rows if len(row) == 5 and row[4].strip()} == names


@pytest.mark.parametrize(("file", "table", "structure"), list(tables()))
def test_every_setting_is_in_the_reference_with_a_meaning(file, table, structure):
    page = configuration_page()
    described = section(section(page, f"## `{file}`") + "\n", f"### `[{table}]`")
    assert described.strip()
    if structure is None or "The same settings as" in described:
        return
    rows = [row.strip("| ").split(" | ") for row in re.findall(r"^\| `.*$", described, re.MULTILINE)]
    cells = {row[0].strip("`"): row for row in rows}
    assert set(cells) == {field.encode_name for field in msgspec.structs.fields(structure)}
    assert [name for name, row in cells.items() if len(row) < 5 or not row[4].strip()] == []


def test_bounds_and_defaults_are_those_of_the_structures():
    page = configuration_page()
    assert "| `rounds` | whole number | required | from 1 to 1,000,000 |" in page
    assert "| `batch_size` | whole number | `32` | from 2 to 65,536 |" in page
    assert '| `transport` | text | `"tcp"` | `"tcp"` or `"websockets"` |' in page


def test_the_python_page_links_every_package_of_the_distribution():
    settings = (ROOT / "pyproject.toml").read_text()
    listed = set(re.findall(r'^  "(fedmedclip\.[\w.]+)",$', settings, re.MULTILINE))
    assert set(packages()) == listed
    assert all(f"(modules/{package}.md)" in python_page() for package in listed)
