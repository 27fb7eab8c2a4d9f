"""Imports inside the simulation run one way: its base, the federation, and the reports about it."""

import re

import pytest

from tests import ROOT

BASE = {"phantoms", "processes"}
MAY_IMPORT = {
    "phantoms": set(),
    "processes": set(),
    "federation": BASE,
    "accuracy": BASE | {"federation"},
    "bandwidth": BASE | {"federation"},
    "demo": BASE | {"federation"},
}


def test_every_room_has_its_place():
    rooms = {path.parent.name for path in (ROOT / "simulation").glob("*/__init__.py")}
    assert rooms == set(MAY_IMPORT)


@pytest.mark.parametrize("room", sorted(MAY_IMPORT))
def test_a_room_imports_only_what_stands_below_it(room):
    for path in (ROOT / "simulation" / room).glob("*.py"):
        found = set(re.findall(r"fedmedclip\.simulation\.(\w+)", path.read_text())) - {room}
        assert found <= MAY_IMPORT[room], f"{path.name} imports {found - MAY_IMPORT[room]}"
