"""CONTRIBUTING names what there is."""

import re

from tests import ROOT

TEXT = (ROOT / "CONTRIBUTING.md").read_text()


def test_the_ten_questions_are_answered_with_places_that_there_are():
    rows = TEXT.split("### Ten questions")[1].split("## To add a method")[0]
    answers = [line.split("|")[2] for line in rows.splitlines() if line.startswith("| W") or "? |" in line]
    assert len(answers) == 10
    for answer in answers:
        places = [place for place in re.findall(r"`([^`]+)`", answer) if "/" in place]
        assert places
        assert all((ROOT / place).exists() for place in places), answer


def test_every_room_is_in_the_table():
    table = TEXT.split("| large room |")[1].split("\n\n")[0]
    for large in ("protocol", "edge_client", "simulation"):
        row = next(line for line in table.splitlines() if line.startswith(f"| `{large}/`"))
        rooms = {path.parent.name for path in (ROOT / large).glob("*/__init__.py")}
        assert rooms == set(re.findall(r"`(\w+)/`", row)) - {large}
