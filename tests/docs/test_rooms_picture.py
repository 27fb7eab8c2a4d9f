"""The picture of the rooms says what the imports say: nothing is left out, nothing is added."""

from xml.etree import ElementTree

import pytest

from docs.generators.picture import description, picture
from docs.generators.rooms import circles, levels, reachable, read_rooms, table
from tests import ROOT

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def rooms():
    return read_rooms()


def drawn_arrows(svg):
    titles = [path.findtext(f"{SVG}title", "") for path in svg.iter(f"{SVG}path")]
    return {tuple(title.split(" imports ")) for title in titles if " imports " in title}


def test_every_file_of_the_tree_is_in_one_room(rooms):
    folders = ("aggregator", "edge_client", "export", "protocol", "simulation", "fedmedclip")
    files = [file for folder in folders for file in (ROOT / folder).rglob("*.py")]
    assert sum(room.files for room in rooms.values()) == len(files)
    assert sum(room.lines for room in rooms.values()) == sum(
        len(file.read_text().splitlines()) for file in files
    )
    inner = {
        f"{folder}/{file.relative_to(ROOT / folder).parts[0]}"
        for folder in folders
        for file in (ROOT / folder).rglob("*/__init__.py")
    }
    assert inner <= set(rooms)


def test_rooms_stand_above_what_they_import(rooms):
    level = levels(rooms)
    circle = {name for names in circles(rooms) for name in names}
    for room in rooms.values():
        assert all(level[other] < level[room.name] for other in room.imports - circle)
        assert level[room.name] == 0 or room.imports


def test_the_house_has_no_circle(rooms):
    assert circles(rooms) == set()


def test_the_arrows_imply_every_import_and_no_other(rooms):
    svg = ElementTree.fromstring(picture(rooms))
    arrows = drawn_arrows(svg)
    assert all(lower in rooms[upper].imports for upper, lower in arrows)
    below = {name: {lower for upper, lower in arrows if upper == name} for name in rooms}
    for name in sorted(rooms, key=levels(rooms).__getitem__):
        below[name] |= {further for other in set(below[name]) for further in below[other]}
    assert below == reachable(rooms)


def test_boxes_stand_apart_and_within_the_picture(rooms):
    svg = ElementTree.fromstring(picture(rooms))
    boxes = [
        {key: float(box.get(key)) for key in ("x", "y", "width", "height")} for box in svg.iter(f"{SVG}rect")
    ]
    assert len(boxes) == len(rooms)
    width, height = (float(size) for size in svg.get("viewBox").split()[2:])
    for box in boxes:
        assert box["x"] >= 0
        assert box["y"] >= 0
        assert box["x"] + box["width"] <= width
        assert box["y"] + box["height"] <= height
    for first in boxes:
        beside = [box for box in boxes if box["y"] == first["y"] and box["x"] > first["x"]]
        assert all(box["x"] >= first["x"] + first["width"] for box in beside)


def test_the_picture_is_told_in_words_and_the_table_names_all(rooms):
    assert all(name in description(rooms) for name in rooms)
    assert all(f"  {name} " in table(rooms) for name in rooms)


def small_tree(folder, files):
    (folder / "pyproject.toml").write_text(
        '[tool.setuptools.package-dir]\n"house" = "house"\n"house.top" = "top"\n'
    )
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return read_rooms(folder)


def test_a_floor_is_below_its_rooms_and_an_entrance_above(tmp_path):
    rooms = small_tree(
        tmp_path,
        {
            "house/__init__.py": '"""All."""\n',
            "top/__init__.py": '"""Top."""\n',
            "top/words.py": "",
            "top/cli.py": "def run():\n    from house.top.inner.deep.work import work\n",
            "top/inner/__init__.py": "from house.top import words\n",
            "top/inner/deep/__init__.py": "",
            "top/inner/deep/work.py": "import house.top.words\n",
        },
    )
    assert levels(rooms) == {"house": 0, "top": 0, "top/inner": 1, "top (entrance)": 2}
    assert rooms["top/inner"].files == 3
    assert rooms["top"].purpose == "Top."


def test_rooms_that_import_each_other_share_a_level_and_are_named(tmp_path):
    rooms = small_tree(
        tmp_path,
        {
            "house/__init__.py": "",
            "top/__init__.py": "",
            "top/one/__init__.py": "from house.top import two\n",
            "top/two/__init__.py": "import house.top.one\n",
        },
    )
    assert circles(rooms) == {frozenset({"top/one", "top/two"})}
    assert levels(rooms)["top/one"] == levels(rooms)["top/two"]
    svg = ElementTree.fromstring(picture(rooms))
    assert drawn_arrows(svg) == {("top/one", "top/two"), ("top/two", "top/one")}
