"""Results are made once for each state of code, command and data; what failed or was killed goes on."""

import os
import re
import signal
import subprocess
import sys
import time

import msgspec
import pytest

from benchmarks.results.__main__ import _make_all
from benchmarks.results.entries import Entry, read_entries, select
from benchmarks.results.index import PAGES, made
from benchmarks.results.inputs import code_digest, data_digest, source_files
from benchmarks.results.making import Workshop, make
from benchmarks.results.markdown_tables import tables_of
from benchmarks.results.pages import fill, mark_whole_page, marked_tables
from benchmarks.results.records import read_record
from benchmarks.results.steps import FailedError
from fedmedclip.protocol.errors import InvalidInputError
from tests import ROOT

TABLE = "| codec | bytes |\n|---|---:|\n| int8 | 7 |\n"
PAGE = "Words.\n\n<!-- table: small/1 -->\n<!-- end -->\n\nMore words.\n"


@pytest.fixture
def workshop(tmp_path):
    data, pages = tmp_path / "data", tmp_path / "pages"
    data.mkdir()
    (data / "classes.toml").write_text("[classes]\n")
    pages.mkdir()
    (pages / "small.md").write_text(PAGE)
    (pages / "index.md").write_text("<!-- made -->\n<!-- end -->\n")
    return Workshop(data, tmp_path / "model", tmp_path / "work", pages, "0123456789")


def entry(*scripts, **changes):
    """Return a result whose commands are these lines of Python; the last prints a table."""
    commands = tuple(f'python -c "{script}" OUT DATA' for script in scripts)
    last = len(scripts)
    small = Entry(
        "small.md",
        commands,
        ("benchmarks.measured_process",),
        1,
        (f"markdown step-{last}.txt",),
        name="small",
    )
    return msgspec.structs.replace(small, **changes)


def printing(text, before="pass"):
    return f"import sys, os, pathlib; out = pathlib.Path(sys.argv[1]); {before}; print({text!r})"


COUNTING = "(out / 'runs').open('a').write('x')"


def runs(workshop):
    return sum(len(file.read_text()) for file in workshop.work.glob("small-*/runs"))


def test_a_result_is_made_once_recorded_and_filled_in(workshop, capsys):
    small = entry(printing(TABLE, COUNTING))
    assert _make_all(workshop, [small, small], keep_going=False, again=False) == []
    assert runs(workshop) == 1
    record = read_record(workshop.pages, "small")
    assert (record.commit, record.inputs.data) == ("0123456789", data_digest(workshop.data))
    page = (workshop.pages / "small.md").read_text()
    assert "| int8 | 7 |" in page
    assert page.startswith("Words.")
    assert page.endswith("More words.\n")
    assert record.line() in page
    assert "commit 0123456789" in record.line()
    assert record.inputs.data in record.line()
    assert "/data" not in record.line()
    assert ["0123456789" in row[2] for row in made({"leakage": record}).rows].count(True) == 1
    assert "small: up to date" in capsys.readouterr().out
    assert _make_all(workshop, [small], keep_going=False, again=True) == []
    assert "runs" in os.listdir(next(workshop.work.glob("small-*")))
    assert runs(workshop) == 1


def test_a_file_that_is_published_names_no_place_of_this_machine(workshop):
    writing = "(out / 'found.json').write_text(' '.join(sys.argv[1:]))"
    make(workshop, entry(printing(TABLE, writing), files={"small.json": "found.json"}))
    assert (workshop.pages / "small.json").read_text() == "OUT DATA"


def test_other_data_and_another_command_make_it_anew(workshop):
    small = entry(printing(TABLE, COUNTING))
    record = make(workshop, small)
    assert workshop.state(small, record) == "up to date"
    other = entry(printing(TABLE, "2 + 2"))
    assert workshop.state(other, record).startswith("the command changed")
    moved = workshop.data.with_name("other")
    moved.mkdir()
    elsewhere = msgspec.structs.replace(workshop, data=moved)
    assert elsewhere.state(small, record).startswith("the data changed since 0123456789")
    dirty = msgspec.structs.replace(record, commit="0123456789+")
    assert workshop.state(small, dirty) == "made of what no commit has"


def test_what_was_finished_before_a_failure_is_not_run_again(workshop):
    flag = workshop.data.parent / "mended"
    failing = f"import sys, os; os.path.exists('{flag}') or sys.exit('no such luck'); print('''{TABLE}''')"
    small = entry(printing("first", COUNTING), failing)
    with pytest.raises(
        FailedError, match=r"small: exit code 1 of: python .*; no such luck \(more in .*step-2\.log\)$"
    ):
        make(workshop, small)
    assert read_record(workshop.pages, "small") is None
    flag.touch()
    make(workshop, small)
    assert runs(workshop) == 1


def test_after_a_failure_others_are_made_where_that_is_asked(workshop, capsys):
    bad = entry("import sys; sys.exit(3)", name="bad")
    assert _make_all(workshop, [bad, entry(printing(TABLE))], keep_going=True, again=False) == ["bad"]
    assert read_record(workshop.pages, "small") is not None
    assert "exit code 3" in capsys.readouterr().err
    with pytest.raises(FailedError):
        _make_all(workshop, [bad], keep_going=False, again=False)


def test_changes_that_no_commit_has_are_refused_or_marked(workshop, monkeypatch):
    monkeypatch.setattr("benchmarks.results.surroundings.changes", lambda: ["simulation/cli.py"])
    small, of_head = entry(printing(TABLE)), msgspec.structs.replace(workshop, commit=None)
    with pytest.raises(FailedError, match=r"^small: the work tree has changes .*\(simulation/cli\.py\)"):
        make(of_head, small)
    marked = make(msgspec.structs.replace(of_head, dirty=True), small)
    assert re.fullmatch(r"[0-9a-f]{10}\+", marked.commit)
    assert of_head.state(small, marked) == "made of what no commit has"


def test_output_without_the_table_is_a_failure(workshop):
    with pytest.raises(FailedError, match="cannot be read"):
        make(workshop, entry(printing("nothing"), read=("last-object",)))


def test_what_cannot_be_made_here_is_left_out_with_its_reason(workshop, capsys):
    needs = {
        "model": "is no model",
        "network": "installs packages",
        "module:benchmarks.of_tomorrow": "not in this version",
    }
    for need, reason in needs.items():
        assert _make_all(workshop, [entry(printing(TABLE), needs=(need,))], False, False) == []
        assert reason in capsys.readouterr().out
    assert list(workshop.work.glob("*")) == []


def test_killed_the_same_command_goes_on(workshop, tmp_path):
    """The driver itself, with a real kill between two steps."""
    slow = printing(
        TABLE, "import time; time.sleep(0 if (out / 'seen').exists() else (out / 'seen').touch() or 60)"
    )
    script = tmp_path / "driver.py"
    small = entry(printing("first", COUNTING), slow)
    fields = msgspec.json.encode(
        [small, str(workshop.data), str(workshop.work), str(workshop.pages)]
    ).decode()
    script.write_text(
        "import msgspec, sys\n"
        "from pathlib import Path\n"
        "from benchmarks.results.entries import Entry\n"
        "from benchmarks.results.making import Workshop, make\n"
        f"fields, data, work, pages = msgspec.json.decode({fields!r})\n"
        "entry = msgspec.convert(fields, Entry)\n"
        "make(Workshop(Path(data), Path(data), Path(work), Path(pages), '0123456789'), entry)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    driver = subprocess.Popen([sys.executable, str(script)], start_new_session=True, env=environment)
    deadline = time.monotonic() + 60
    while not list(workshop.work.glob("small-*/seen")) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(driver.pid, signal.SIGKILL)
    driver.wait()
    assert read_record(workshop.pages, "small") is None
    subprocess.run([sys.executable, str(script)], check=True, env=environment)
    assert read_record(workshop.pages, "small").tables["1"] == tables_of(TABLE)[0]
    assert runs(workshop) == 1


def test_the_digest_of_the_code_follows_imports(tmp_path):
    files = {
        "simulation/bench.py": "def run():\n    from fedmedclip.protocol import words\n",
        "simulation/__init__.py": "",
        "simulation/other.py": "",
        "protocol/__init__.py": "",
        "protocol/words.py": "import numpy\nimport fedmedclip.protocol.deep\n",
        "protocol/deep.py": "",
        "edge_client/learning/adam.py": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    modules = ("fedmedclip.simulation.bench",)
    found = {file.relative_to(tmp_path).as_posix() for file in source_files(modules, tmp_path)}
    assert found == files.keys() - {"simulation/other.py"}
    before = code_digest(modules, tmp_path)
    (tmp_path / "simulation/other.py").write_text("x = 1\n")
    assert code_digest(modules, tmp_path) == before
    (tmp_path / "protocol/deep.py").write_text("x = 1\n")
    assert code_digest(modules, tmp_path) != before
    with pytest.raises(FileNotFoundError, match=r"fedmedclip\.simulation\.nothing"):
        source_files(["fedmedclip.simulation.nothing"], tmp_path)


def test_the_digest_of_data_is_over_names_and_contents(tmp_path):
    (tmp_path / "a").write_text("1")
    before = data_digest(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    assert data_digest(tmp_path) != before
    (tmp_path / "b").rename(tmp_path / "a")
    assert data_digest(tmp_path) == before
    (tmp_path / "a").write_text("2")
    assert data_digest(tmp_path) != before


def test_a_table_that_the_output_no_longer_has_is_a_failure(workshop):
    (workshop.pages / "other.md").write_text(PAGE.replace("small/1", "small/2"))
    with pytest.raises(FailedError, match=r"pages ask for small/2, .* there are: 1$"):
        make(workshop, entry(printing(TABLE)))


def test_a_table_without_a_record_stays_and_says_so():
    old = PAGE.replace("-->\n<!--", f"-->\n{TABLE}<!--")
    filled = fill(old, {})
    assert "no claim of today's; `make results ONLY=small`" in filled
    assert TABLE in filled
    assert fill(filled, {}) == filled
    assert "Not made yet" in fill(PAGE, {})
    assert fill(fill(PAGE, {}), {}) == fill(PAGE, {})


def test_a_page_that_a_command_wrote_gets_a_line_below_each_table():
    page = mark_whole_page(f"# Report\n\n{TABLE}\nWords | more\n\n{TABLE}", "small", "<small>line</small>")
    assert list(marked_tables(page)) == ["small/1", "small/2"]
    assert page.count("<small>line</small>") == 2
    assert [list(table) for table in tables_of(page)] == [list(tables_of(TABLE)[0])] * 2


def test_a_name_that_there_is_not_is_refused():
    assert [one.name for one in select(read_entries(), "demo-brain, leakage")] == ["demo-brain", "leakage"]
    with pytest.raises(InvalidInputError, match="there is no result nothing"):
        select(read_entries(), "nothing,leakage")


def test_the_list_says_what_is_due():
    command = [sys.executable, "-m", "benchmarks.results", "--list", "--only", "codecs-512,peers-256"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    codecs, peers = done.stdout.splitlines()
    assert codecs.split()[:2] == ["codecs-512", "codecs.md"]
    assert "--network" in peers
    assert PAGES.is_dir()
