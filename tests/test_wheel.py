"""What a wheel holds, and that it works beside a distribution that owns the rooms' names at the top level."""

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

from fedmedclip import __version__
from tests import ROOT
from tests.edge_client.conftest import write_tiny_bundle

SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
FOLDERS = SETUPTOOLS["package-dir"]
DECOY = {
    "protocol/__init__.py": "raise ImportError('the decoy')\n",
    "export/__init__.py": "raise ImportError('the decoy')\n",
    "simulation.py": "raise ImportError('the decoy')\n",
}


def packaged(path):
    """Return where a wheel holds a file of the repository, as fedmedclip/protocol/topics.py."""
    room, *rest = path.relative_to(ROOT).parts
    (name,) = (name for name, folder in FOLDERS.items() if folder == room)
    return "/".join([*name.split("."), *rest])


def python_files():
    return [path for folder in FOLDERS.values() for path in (ROOT / folder).rglob("*.py")]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy: setuptools would leave a build folder, and read what an older one left there."""
    copy = tmp_path_factory.mktemp("source")
    for folder in FOLDERS.values():
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    command = ["wheel", "--quiet", "--no-deps", "--wheel-dir", copy / "dist", copy]
    if int(version("setuptools").split(".")[0]) >= 77:
        command.insert(1, "--no-build-isolation")
    pip(*command)
    (built,) = (copy / "dist").iterdir()
    return built


@pytest.fixture(scope="module")
def decoy(tmp_path_factory):
    path = tmp_path_factory.mktemp("decoy") / "decoy-1.0-py3-none-any.whl"
    description = {
        "decoy-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: decoy\nVersion: 1.0\n",
        "decoy-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files = {**DECOY, **description}
    record = "".join(f"{name},,\n" for name in [*files, "decoy-1.0.dist-info/RECORD"])
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {**files, "decoy-1.0.dist-info/RECORD": record}.items():
            archive.writestr(name, content)
    return path


def pip(*arguments):
    subprocess.run([sys.executable, "-m", "pip", *map(str, arguments)], check=True, cwd="/")


def test_every_folder_with_python_files_is_listed_in_pyproject():
    found = {packaged(path).rpartition("/")[0].replace("/", ".") for path in python_files()}
    listed = set(SETUPTOOLS["packages"])
    assert not found - listed, f"add to packages in pyproject.toml: {sorted(found - listed)}"
    assert not listed - found, f"remove from packages in pyproject.toml: {sorted(listed - found)}"


def test_the_wheel_holds_the_files_of_the_rooms_and_nothing_else(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    information = f"fedmedclip_edge-{__version__}.dist-info"
    assert {name.split("/")[0] for name in names} == {"fedmedclip", information}
    ours = {name for name in names if not name.startswith(information)}
    data = {
        "fedmedclip/py.typed",
        "fedmedclip/export/parameters.json",
        "fedmedclip/protocol/log_events.toml",
        "fedmedclip/protocol/pages/page.css",
        "fedmedclip/protocol/pages/page.js",
    }
    data |= {
        f"fedmedclip/examples/{name}.toml" for name in ("aggregator", "classes", "observer", "serve", "site")
    }
    assert ours == data | {packaged(path) for path in python_files()}
    assert wheel.stat().st_size < 1_500_000


@pytest.mark.slow
@pytest.mark.parametrize("ours_first", [True, False], ids=["ours first", "decoy first"])
def test_beside_a_distribution_that_owns_the_names_of_the_rooms(tmp_path, wheel, decoy, ours_first):
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    (packages,) = environment.glob("lib/python*/site-packages")
    for one in (wheel, decoy) if ours_first else (decoy, wheel):
        pip("--python", environment, "install", "--quiet", "--no-deps", "--no-index", "--no-compile", one)
    bundle = write_tiny_bundle(tmp_path / "bundle").folder
    assert all((packages / name).exists() for name in DECOY)
    check_commands(environment, bundle)
    pip("--python", environment, "uninstall", "--quiet", "--yes", "decoy")
    assert not any((packages / name).exists() for name in DECOY)
    check_commands(environment, bundle)


def check_commands(environment: Path, bundle: Path) -> None:
    # What we depend on comes from the environment of the tests, behind what is installed here. One process
    # runs all commands, for a start takes longer than a command.
    code = f"""
import sys
sys.path += {[path for path in sys.path if path.endswith("site-packages")]}
from fedmedclip.command import main
for arguments in (["--help"], ["--version"], ["bundle", "show", {str(bundle)!r}], ["demo"]):
    sys.argv = ["fedmedclip", *arguments]
    try:
        main()
    except SystemExit as end:
        print("exit code", end.code)
"""
    command = [environment / "bin" / "python", "-c", code]
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=environment, env=clean, capture_output=True, text=True, check=False)
    helped, versioned, shown, without_clip, _ = done.stdout.split("exit code ")
    assert "aggregator" in helped
    assert versioned == f"0\nfedmedclip {__version__}\n"
    assert "glioma" in shown
    assert without_clip == "0\n"
    assert "pip install ./phantom_clip, or give --model" in done.stderr
