"""Prove that an installation needs no compiler: download its wheels for each Python and machine.

    python deploy/check_wheels.py [--extra NAME]... [--glibc 28] [--work FOLDER] [PIP OPTION]...

Base and extras (default: serve) on Linux, x86_64 and aarch64, every supported Python; nothing of it is run.
The newest versions that pyproject.toml allows are taken, or those of `-c constraints.txt`. Prints a Markdown
table and, as its last line, the same as JSON. Exit code 1: one of them cannot be had as wheels alone.

pip weighs the markers of requirements for the Python that runs it, so pyproject.toml's own are weighed here,
and a package that only another one needs there is named as missing.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from email import message_from_bytes
from pathlib import Path

from lock_requirements import MACHINES, PYTHONS, ROOT, marker_environment, normalised, target_options
from pip._vendor.packaging.requirements import Requirement


def main() -> None:
    """Download for each Python and machine, and print what came."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--extra", action="append", default=[], help="an extra of pyproject.toml (default: serve)"
    )
    parser.add_argument(
        "--glibc", type=int, default=28, help="minor version of the oldest glibc 2 (default: 28)"
    )
    parser.add_argument("--work", type=Path, help="keep the wheels here (default: they are removed)")
    options, pip_options = parser.parse_known_args()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        for extra in ("", *(options.extra or ["serve"])):
            for python in PYTHONS:
                for machine in MACHINES:
                    folder = (options.work or Path(temporary)) / f"{extra or 'base'}-{python}-{machine}"
                    wanted = requirements(project, extra, marker_environment(python, machine))
                    target = target_options(python, machine, options.glibc)
                    problem = download(wanted, folder, [*target, *pip_options]) or missing(
                        folder, python, machine
                    )
                    wheels = sorted(folder.glob("*.whl"))
                    rows.append(
                        {
                            "installation": f"[{extra}]" if extra else "base",
                            "python": python,
                            "machine": machine,
                            "wheels": len(wheels),
                            "megabytes": round(sum(wheel.stat().st_size for wheel in wheels) / 1e6, 1),
                            "problem": problem,
                        }
                    )
                    print(f"{folder.name}: {problem or 'all as wheels'}", file=sys.stderr)
    print(f"\n| installation | machine | {' | '.join(f'Python {python}' for python in PYTHONS)} |")
    print(f"|---|---|{'---|' * len(PYTHONS)}")
    for (installation, machine), found in by_line(rows).items():
        print(f"| {installation} | {machine} | {' | '.join(found)} |")
    complete = not any(row["problem"] for row in rows)
    print(f"\n{json.dumps({'glibc': f'2.{options.glibc}', 'complete': complete, 'rows': rows})}")
    sys.exit(not complete)


def requirements(project: dict, extra: str, environment: dict[str, str]) -> list[str]:
    """Return what an installation asks for there, the extras that an extra names in its place, no markers."""
    asked = list(project["dependencies"])
    waiting = [extra] if extra else []
    while waiting:
        for text in project["optional-dependencies"][waiting.pop()]:
            requirement = Requirement(text)
            if normalised(requirement.name) == project["name"]:
                waiting += requirement.extras
            else:
                asked.append(text)
    held = [
        text for text in asked if (marker := Requirement(text).marker) is None or marker.evaluate(environment)
    ]
    return [text.partition(";")[0].strip() for text in held]


def download(wanted: list[str], folder: Path, options: list[str]) -> str | None:
    """Download wheels into a folder; return pip's reason where it cannot."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run(
        [*command, "--dest", str(folder), *options, *wanted], check=False, capture_output=True, text=True
    )
    errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
    return None if done.returncode == 0 else (errors or ["pip fails"])[-1].removeprefix("ERROR: ")


def missing(folder: Path, python: str, machine: str) -> str | None:
    """Return what one of the wheels needs there, and pip here left out; None where nothing is."""
    environment = marker_environment(python, machine)
    about = [message_from_bytes(metadata(wheel)) for wheel in folder.glob("*.whl")]
    names = {normalised(package["Name"]) for package in about}
    for package in about:
        for text in package.get_all("Requires-Dist", ()):
            requirement = Requirement(text)
            needed = requirement.marker is None or requirement.marker.evaluate(environment)
            if needed and normalised(requirement.name) not in names:
                return f"{package['Name']} needs {text}"
    return None


def metadata(wheel: Path) -> bytes:
    """Return the METADATA file of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return archive.read(name)


def by_line(rows: list[dict]) -> dict[tuple[str, str], list[str]]:
    """Return the table's cells by installation and machine, Pythons in order."""
    lines: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        cell = row["problem"] or f"{row['wheels']} wheels, {row['megabytes']} MB"
        lines.setdefault((row["installation"], row["machine"]), []).append(cell)
    return lines


if __name__ == "__main__":
    main()
