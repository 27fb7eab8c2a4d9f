"""Where a result is made: the commit, the machine, what is installed, and what this machine lets one do."""

import os
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from benchmarks.results.inputs import ROOT
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.simulation.accuracy.origin import origin
from fedmedclip.simulation.processes.brokers import find_mosquitto

_PACKAGES = ("torch", "onnxruntime", "numpy")
# What `make results` itself writes: a run that goes on finds what it wrote before.
_WRITTEN = (":!docs/results", ":!README.md")


def commit() -> str:
    """Return the short name of HEAD, with a `+` where the work tree has other files than it."""
    return _git("rev-parse", "--short=10", "HEAD") + ("+" if changes() else "")


def changes() -> list[str]:
    """Return the files that differ from HEAD or are not in it, without what `make results` writes."""
    lines = _git("status", "--porcelain", "--untracked-files=all", "--", ".", *_WRITTEN).splitlines()
    return [line[3:] for line in lines]


def machine() -> str:
    """Return system, processor and number of cores, without the machine's name."""
    return origin().machine


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that move figures."""
    found = {"Python": origin().python}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def why_not(need: str, data: Path, model: Path, network: bool) -> str | None:
    """Return why what an entry needs is not there, None where it is.

    Needs are `data`, `model`, `network`, `root`, `mosquitto`, `arm64`, and `module:NAME`.
    """
    kind, _, name = need.partition(":")
    match kind:
        case "data":
            return None if (data / "classes.toml").exists() else f"{data} is no data set; give --data"
        case "model":
            return None if model.is_dir() else f"{model} is no model; give --model"
        case "network":
            return None if network else "installs packages from an index; allow it with --network"
        case "root":
            return None if _has_namespaces() else "needs root and network namespaces"
        case "mosquitto":
            return _no_mosquitto()
        case "arm64":
            tools = [tool for tool in ("qemu-aarch64-static", "debootstrap") if shutil.which(tool) is None]
            return f"needs {' and '.join(tools)}" if tools else None
        case "module":
            return None if _exists(name) else f"{name} is not in this version"
        case _:
            raise ValueError(f"unknown need {need}")


def _exists(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def _has_namespaces() -> bool:
    unshare = shutil.which("unshare")
    if os.geteuid() != 0 or unshare is None or shutil.which("ip") is None:
        return False
    return subprocess.run([unshare, "--net", "true"], capture_output=True, check=False).returncode == 0


def _no_mosquitto() -> str | None:
    try:
        find_mosquitto()
    except InvalidInputError as error:
        return str(error)
    return None


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.rstrip("\n")
