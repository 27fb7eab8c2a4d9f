"""The lock file of the base installation: in our ranges, the versions that are tested, nothing left out."""

import re
import tomllib
from importlib.metadata import PackageNotFoundError, distribution

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
TEXT = (ROOT / "deploy" / "edge-requirements.txt").read_text()
BLOCK = re.compile(r"^(\S+)==(\S+) \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", re.MULTILINE)
LOCKED = {
    name: (version, re.findall("sha256:(.*?)[ \n]", hashes)) for name, version, hashes in BLOCK.findall(TEXT)
}
MACHINES = [
    {"python_version": python, "python_full_version": f"{python}.0", "platform_machine": machine,
     "sys_platform": "linux", "platform_system": "Linux", "extra": ""}
    for python in ("3.11", "3.12", "3.13", "3.14") for machine in ("x86_64", "aarch64")
]  # fmt: skip


def test_nothing_in_it_is_without_hashes():
    lines = [line for line in TEXT.splitlines() if not line.startswith("#")]
    assert len(lines) == sum(1 + len(hashes) for _, hashes in LOCKED.values())
    assert all(hashes and hashes == sorted(set(hashes)) for _, hashes in LOCKED.values())
    assert list(LOCKED) == sorted(LOCKED)


@pytest.mark.parametrize("requirement", PROJECT["dependencies"])
def test_it_satisfies_what_the_base_installation_asks_for(requirement):
    asked = Requirement(requirement)
    version, _ = LOCKED[canonicalize_name(asked.name)]
    assert version in asked.specifier


def test_its_versions_are_those_that_are_tested():
    tested = dict(
        line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line
    )
    tested = {canonicalize_name(name): version for name, version in tested.items()}
    assert {canonicalize_name(Requirement(text).name) for text in PROJECT["dependencies"]} <= tested.keys()
    for name in tested.keys() & LOCKED.keys():
        assert LOCKED[name][0] == tested[name], f"run `make lock`: {name}"


def test_what_its_packages_need_is_in_it_on_every_machine():
    known = 0
    for name, (version, _) in LOCKED.items():
        try:
            package = distribution(name)
        except PackageNotFoundError:
            continue
        if package.version != version:
            continue
        known += 1
        for requirement in map(Requirement, package.requires or ()):
            for machine in MACHINES:
                if requirement.marker is None or requirement.marker.evaluate(machine):
                    assert LOCKED[canonicalize_name(requirement.name)][0] in requirement.specifier
    assert known >= len(PROJECT["dependencies"])
