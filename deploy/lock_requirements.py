"""Write `deploy/edge-requirements.txt`: what the base installation needs, each package with its hashes.

    python deploy/lock_requirements.py [--extra NAME]... [--output FILE] [PIP OPTION]...

For `pip install --require-hashes` on Linux, x86_64 and aarch64, on every supported Python. pip itself
resolves for each of them, from the metadata of an index and without an installation, within pyproject.toml's
ranges and the versions of constraints.txt; the hashes are those that the index states, of wheels alone. pip
weighs the markers of requirements for the Python that runs it, so they are weighed again here for each
machine, and a package that only another one needs ends this with an error. `--extra train` takes the index
that has the PyTorch to be locked, as `--extra-index-url URL`; other options go to pip too.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

# pip's own copy: whoever can run this has it.
from pip._vendor.packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
MACHINES = ("x86_64", "aarch64")
# Minor versions of glibc 2, which choose among a package's wheels: of Debian 10, 11, RHEL 9, and today's.
LIBRARIES = (28, 31, 34, 41)

Packages = dict[str, tuple[str, set[str]]]
"""Of each normalised name the version and the SHA-256 of its wheels."""


def main() -> None:
    """Resolve for each Python and machine, and write the file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--extra", action="append", default=[], help="an extra of pyproject.toml to lock too")
    parser.add_argument("--output", type=Path, default=ROOT / "deploy" / "edge-requirements.txt")
    options, pip_options = parser.parse_known_args()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = list(project["dependencies"])
    for extra in options.extra:
        wanted += project["optional-dependencies"][extra]
    packages: Packages = {}
    for python in PYTHONS:
        for machine in MACHINES:
            for library in LIBRARIES:
                print(f"Python {python}, {machine}, glibc 2.{library}", file=sys.stderr)
                report = resolve(wanted, python, machine, library, pip_options)
                add(packages, report)
            require_complete(report, python, machine)
    options.output.write_text(text_of(packages, options.extra), encoding="utf-8")
    print(f"{options.output}: {len(packages)} packages", file=sys.stderr)


def resolve(wanted: list[str], python: str, machine: str, library: int, pip_options: list[str]) -> list[dict]:
    """Return what pip would install there, as its report has it. Raises CalledProcessError as it fails."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed"]
        command += ["--disable-pip-version-check", "--report", str(report), "--target", folder]
        command += target_options(python, machine, library)
        subprocess.run([*command, "-c", str(ROOT / "constraints.txt"), *pip_options, *wanted], check=True)
        return json.loads(report.read_text(encoding="utf-8"))["install"]


def target_options(python: str, machine: str, library: int) -> list[str]:
    """Return pip's options for wheels, and wheels alone, of another Python and machine than this one."""
    options = ["--only-binary=:all:", "--python-version", python]
    # The first is the most wanted, as on the machine itself.
    for minor in range(library, 16, -1):
        options += ["--platform", f"manylinux_2_{minor}_{machine}"]
    return [*options, "--platform", f"manylinux2014_{machine}"]


def add(packages: Packages, report: list[dict]) -> None:
    """Add versions and hashes of a report. Ends the program where two machines would get two versions."""
    for item in report:
        name, version = normalised(item["metadata"]["name"]), item["metadata"]["version"]
        known, hashes = packages.setdefault(name, (version, set()))
        if known != version:
            sys.exit(f"{name} is {known} on one machine and {version} on another; pin it in constraints.txt")
        hashes.add(item["download_info"]["archive_info"]["hashes"]["sha256"])


def require_complete(report: list[dict], python: str, machine: str) -> None:
    """End the program where pip left out a requirement that holds on that machine, but not on this one."""
    environment = marker_environment(python, machine)
    names = {normalised(item["metadata"]["name"]) for item in report}
    for item in report:
        for text in item["metadata"].get("requires_dist", ()):
            requirement = Requirement(text)
            needed = requirement.marker is None or requirement.marker.evaluate(environment)
            if needed and normalised(requirement.name) not in names:
                sys.exit(
                    f"{item['metadata']['name']} needs {text} on Python {python}, {machine}; run this with "
                    "that Python"
                )


def marker_environment(python: str, machine: str) -> dict[str, str]:
    """Return what the markers of requirements are weighed by there (PEP 508)."""
    return {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "platform_machine": machine,
        "sys_platform": "linux",
        "platform_system": "Linux",
        "os_name": "posix",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "extra": "",
    }


def text_of(packages: Packages, extras: list[str]) -> str:
    """Return the file's text."""
    what = "base installation" + "".join(f", [{extra}]" for extra in extras)
    lines = [
        f"# The {what} of fedmedclip-edge on Linux (x86_64, aarch64), Python {PYTHONS[0]} to {PYTHONS[-1]}:",
        "#   pip install --require-hashes --only-binary=:all: -r edge-requirements.txt",
        "#   pip install --no-deps fedmedclip_edge-VERSION-py3-none-any.whl",
        "# Made by `make lock`; do not edit.",
    ]
    for name, (version, hashes) in sorted(packages.items()):
        lines.append(f"{name}=={version} \\")
        lines.append(" \\\n".join(f"    --hash=sha256:{found}" for found in sorted(hashes)))
    return "\n".join(lines) + "\n"


def normalised(name: str) -> str:
    """Return a name as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    main()
