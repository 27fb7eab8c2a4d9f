"""The rooms of the package, read from its imports: which stands on which, and how large each is.

    python -m docs.generators.rooms                 # rooms by level, with files and lines, as a table
    python -m docs.generators.rooms --svg FILE      # the picture of docs/architecture.md

A room is a folder below a top-level folder (edge_client/images), with all that lies in it. The files that lie
in a top-level folder itself are a room of their own, its floor. Those of them that import rooms which stand
on the others (a `cli.py`, say) are its entrance: the floor is below such rooms, the entrance above them.
"""

import argparse
import ast
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ENTRANCE = " (entrance)"


@dataclass(frozen=True)
class Room:
    """A room: its name, the folder at the top that it is in, its size, and the rooms that it imports.

    `purpose` is the first line of its docstring; `lines` counts all lines of its Python files.
    """

    name: str
    folder: str
    purpose: str
    files: int
    lines: int
    imports: frozenset[str]


def read_rooms(root: Path = ROOT) -> dict[str, Room]:
    """Return the rooms of the package that `pyproject.toml` in `root` describes, by name.

    Every import counts, wherever it stands. Raises OSError or SyntaxError for a file that cannot be read.
    """
    by_name = modules(root)
    files = set(by_name.values())
    imported = {file: set(_imported_files(file, by_name)) for file in files}
    rooms = {file: "/".join(file.relative_to(root).parent.parts[:2]) for file in files}
    packages = {file: name.removesuffix(f".{file.stem}") for name, file in by_name.items()}
    for file in _entrances(imported, rooms, packages):
        rooms[file] += ENTRANCE
    return {name: _room(name, rooms, imported, root) for name in sorted(set(rooms.values()))}


def levels(rooms: Mapping[str, Room]) -> dict[str, int]:
    """Return the level of each room: 0 where it imports no other, otherwise one above the highest imported.

    Rooms that import each other in a circle share a level.
    """
    below = reachable(rooms)
    found: dict[str, int] = {}

    def level(name: str) -> int:
        if name not in found:
            circle = {other for other in below[name] if name in below[other]}
            found[name] = 1 + max((level(other) for other in below[name] - circle - {name}), default=-1)
        return found[name]

    return {name: level(name) for name in rooms}


def reachable(rooms: Mapping[str, Room]) -> dict[str, set[str]]:
    """Return for each room all rooms that it imports, directly or through others."""
    found = {}
    for name in rooms:
        seen: set[str] = set()
        waiting = [name]
        while waiting:
            new = rooms[waiting.pop()].imports - seen
            seen |= new
            waiting += new
        found[name] = seen
    return found


def circles(rooms: Mapping[str, Room]) -> set[frozenset[str]]:
    """Return the sets of rooms that import each other, directly or in a circle."""
    below = reachable(rooms)
    return {
        frozenset(other for other in below[name] if name in below[other])
        for name in rooms
        if name in below[name]
    }


def package_folders(root: Path = ROOT) -> dict[str, Path]:
    """Return where each package lies whose folder does not follow from its name (fedmedclip.protocol)."""
    settings = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    folders: dict[str, str] = settings["tool"]["setuptools"]["package-dir"]
    return {package: root / folder for package, folder in folders.items()}


def modules(root: Path = ROOT) -> dict[str, Path]:
    """Return the file of each module (fedmedclip.protocol.seeds: protocol/seeds.py), packages included."""
    found = {}
    for package, folder in package_folders(root).items():
        for file in sorted(folder.rglob("*.py")):
            inner = file.relative_to(folder).with_suffix("").parts
            found[".".join([package, *(part for part in inner if part != "__init__")])] = file
    return found


def _imported_files(file: Path, by_name: Mapping[str, Path]) -> Iterator[Path]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            while name and name not in by_name:
                name = name.rpartition(".")[0]
            if name:
                yield by_name[name]


def _entrances(
    imported: Mapping[Path, set[Path]], rooms: Mapping[Path, str], packages: Mapping[Path, str]
) -> set[Path]:
    """Return the files of floors that import a package inside their own folder which rests on the floor."""
    floors = [file for file in rooms if "/" not in rooms[file] and file.name != "__init__.py"]
    below = {file: _reached(file, imported) for file in rooms}
    above: set[Path] = set()
    for _ in floors:  # a file that imports such a file is one as well
        above |= {
            file
            for file in floors
            for other in imported[file]
            if (
                packages[other].startswith(f"{packages[file]}.")
                and any(rooms[further] == rooms[file] for further in below[other] & set(floors))
            )
            or (other in above and rooms[other] == rooms[file])
        }
    kept = {rooms[file] for file in floors if file not in above}
    return {file for file in above if rooms[file] in kept}


def _reached(file: Path, imported: Mapping[Path, set[Path]]) -> set[Path]:
    found: set[Path] = set()
    waiting = [file]
    while waiting:
        new = imported[waiting.pop()] - found
        found |= new
        waiting += new
    return found


def _room(name: str, rooms: Mapping[Path, str], imported: Mapping[Path, set[Path]], root: Path) -> Room:
    own = [file for file, room in rooms.items() if room == name]
    folder = name.removesuffix(ENTRANCE)
    return Room(
        name=name,
        folder=name.partition("/")[0].removesuffix(ENTRANCE),
        purpose=purpose_of(root / folder / "__init__.py"),
        files=len(own),
        lines=sum(file.read_text(encoding="utf-8").count("\n") for file in own),
        imports=frozenset(rooms[other] for file in own for other in imported[file]) - {name},
    )


def purpose_of(file: Path) -> str:
    """Return the first line of a module's docstring, empty without one."""
    return (ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "").partition("\n")[0]


def table(rooms: Mapping[str, Room]) -> str:
    """Return level, name, files, lines and direct imports of every room, the highest level first."""
    level = levels(rooms)
    rows = [("level", "room", "files", "lines", "imports")]
    for room in sorted(rooms.values(), key=lambda room: (-level[room.name], room.name)):
        imports = ", ".join(sorted(room.imports))
        rows.append((str(level[room.name]), room.name, str(room.files), f"{room.lines:,}", imports))
    rows.append(("", "all", *_totals(rooms), ""))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return "\n".join(
        "  ".join(
            [*(row[column].rjust(widths[column]) for column in (0, 2, 3)), row[1].ljust(widths[1]), row[4]]
        )
        for row in rows
    )


def _totals(rooms: Mapping[str, Room]) -> tuple[str, str]:
    return str(sum(room.files for room in rooms.values())), f"{sum(room.lines for room in rooms.values()):,}"


def main() -> None:
    """Print the table, and write the picture where one is asked for."""
    parser = argparse.ArgumentParser(description="The rooms of the package, read from its imports.")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="Write the picture here.")
    arguments = parser.parse_args()
    rooms = read_rooms()
    print(table(rooms))
    for circle in circles(rooms):
        print(f"import each other in a circle: {', '.join(sorted(circle))}")
    if arguments.svg is not None:
        from docs.generators.picture import picture

        arguments.svg.write_text(picture(rooms, alone=True), encoding="utf-8")


if __name__ == "__main__":
    main()
