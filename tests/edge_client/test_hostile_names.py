"""File names as other people's machines give them: not UTF-8, with line breaks, escapes and formulas."""

import csv
import json
import os
import shutil

import pytest

from tests.edge_client.test_commands import fedmedclip, one_line

NAMES = {
    b"caf\xe9.png": r"caf\xe9.png",
    b"line\nbreak.png": r"line\nbreak.png",
    b"red\x1b[31m.png": r"red\x1b[31m.png",
    b"\xe2\x80\xaegnp.exe.png": r"\u202egnp.exe.png",
    "plain é.png".encode(): "plain é.png",
}
FORMULAS = ("=1+1.png", "+1.png", "-1.png", "@SUM(A1).png", "\t=1.png")


@pytest.fixture
def hostile_folder(tmp_path, class_folders):
    folder = tmp_path / "scans"
    folder.mkdir()
    for name in NAMES:
        shutil.copy(class_folders / "stroke" / "00.png", os.path.join(os.fsencode(folder), name))
    return folder


@pytest.mark.parametrize("output_format", ["csv", "jsonl"])
@pytest.mark.parametrize("to_file", [True, False])
def test_every_name_has_its_row(tmp_path, tiny_bundle, hostile_folder, output_format, to_file):
    target = tmp_path / "out"
    arguments = ["predict", "--bundle", tiny_bundle.folder, hostile_folder, "--format", output_format]
    done = fedmedclip(*arguments, *(["-o", target] if to_file else []))
    assert done.returncode == 0, done.stderr
    text = target.read_text(encoding="utf-8") if to_file else done.stdout
    assert not {"\x1b", "\u202e"} & set(text)
    lines = text.splitlines()
    if output_format == "csv":
        found = {row["path"] for row in csv.DictReader(lines)}
        assert found == {str(hostile_folder / shown) for shown in NAMES.values()}
        assert len(lines) == 1 + len(NAMES)
    else:
        rows = [json.loads(line) for line in lines]
        # JSON has escapes of its own; what is no UTF-8 comes as bytes too.
        exact = {
            bytes.fromhex(row["path_bytes"]) if "path_bytes" in row else row["path"].encode() for row in rows
        }
        assert exact == {os.path.join(os.fsencode(hostile_folder), name) for name in NAMES}


def test_what_is_skipped_is_named_in_one_line_each(tiny_bundle, hostile_folder):
    for path in hostile_folder.iterdir():
        path.write_bytes(b"")
    (hostile_folder / "sound.png").write_bytes(b"")
    done = fedmedclip("predict", "--bundle", tiny_bundle.folder, hostile_folder)
    assert "no image could be read" in one_line(done)
    skipped = [line for line in done.stderr.splitlines() if line.startswith("skipped ")]
    assert len(skipped) == len(NAMES) + 1
    assert "\x1b" not in done.stderr
    assert any(r"caf\xe9.png: empty file" in line for line in skipped)


def test_no_name_is_a_formula(tmp_path, tiny_bundle, class_folders, monkeypatch):
    folder = tmp_path / "scans"
    folder.mkdir()
    for name in FORMULAS:
        shutil.copy(class_folders / "stroke" / "00.png", folder / name)
    target = tmp_path / "out.csv"
    monkeypatch.chdir(folder)
    done = fedmedclip(
        "predict", "--bundle", tiny_bundle.folder.resolve(), "-o", target, "--", *FORMULAS, cwd=folder
    )
    assert done.returncode == 0, done.stderr
    with target.open(newline="", encoding="utf-8") as file:
        cells = [row["path"] for row in csv.DictReader(file)]
    assert not [cell for cell in cells if cell[0] in "=+-@\t\r"]
    # A path with ./ before it is the same path, so whoever joins on it still finds the file.
    assert [cell for cell in cells if os.path.exists(cell)] == [f"./{name}" for name in FORMULAS[:4]]


@pytest.mark.slow
def test_folders_with_such_names_are_read_and_written_or_refused_in_a_line(
    tmp_path, tiny_bundle, class_folders
):
    odd = tmp_path / os.fsdecode(b"caf\xe9[red]\nforged\x1b[31m")
    shutil.copytree(class_folders, odd / "data")
    shutil.copytree(tiny_bundle.folder, odd / "bundle")
    (odd / "data" / "stroke" / "cut\n[bold].png").write_bytes(b"\x89PNG")
    done = fedmedclip(
        "evaluate", odd / "data", "--bundle", tiny_bundle.folder, "-o", odd / "figures.json", "--strict"
    )
    assert r"caf\xe9[red]" in one_line(done)
    done = fedmedclip("evaluate", odd / "data", "--bundle", tiny_bundle.folder, "-o", odd / "figures.json")
    assert done.returncode == 0, done.stderr
    (skipped,) = json.loads((odd / "figures.json").read_text())["skipped"]
    assert skipped == f"{tmp_path}/" + r"caf\xe9[red]\nforged\x1b[31m/data/stroke/cut\n[bold].png"
    words = one_line(fedmedclip("predict", "--bundle", odd / "bundle", class_folders))
    assert "the path is not UTF-8, and ONNX Runtime takes no other" in words
    (odd / "site.toml").write_text(
        f"[site]\nfederation = 'f'\nname = 'a'\nbundle = '{tiny_bundle.folder}'\ndata = 'nowhere'\n"
        "[broker]\nport = 1\n"
    )
    done = fedmedclip("doctor", "--config", odd / "site.toml", "--json")
    findings = {finding["name"]: finding["words"] for finding in json.loads(done.stdout)["findings"]}
    assert r"caf\xe9[red]\nforged\x1b[31m/nowhere" in findings["data"]
    done = fedmedclip("doctor", "--config", odd / "site.toml")
    assert not {"\x1b", "\udce9"} & set(done.stdout)
    assert "secrets" in done.stdout
