"""What a result depends on: the source files that its command imports, and the files that it reads."""

import ast
import hashlib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("aggregator", "edge_client", "export", "protocol", "simulation")
# Built-in methods are found by name, not by an import; versions of what else is installed are pinned here.
ALWAYS = ("edge_client/heads", "edge_client/learning", "protocol/codecs", "protocol/heads", "constraints.txt")
_DIGITS = 12


def source_files(modules: Iterable[str], root: Path = ROOT) -> list[Path]:
    """Return the files of these modules and of all of ours that they import, directly or not, sorted.

    A module that starts others by `python -m` has to be given together with them.
    Raises FileNotFoundError for a module that does not exist.
    """
    found: set[Path] = set()
    waiting = []
    for module in modules:
        files = list(_files_of(module, root))
        if not files:
            raise FileNotFoundError(f"there is no module {module}")
        waiting += files
    for place in ALWAYS:
        path = root / place
        waiting += path.rglob("*.py") if path.is_dir() else [path] if path.exists() else []
    while waiting:
        file = waiting.pop()
        if file not in found:
            found.add(file)
            if file.suffix == ".py":
                waiting += _imported_files(file, root)
    return sorted(found)


def code_digest(modules: Iterable[str], root: Path = ROOT) -> str:
    """Return 12 hexadecimal digits over the names and contents of `source_files`."""
    return _digest((file.relative_to(root).as_posix(), file) for file in source_files(modules, root))


def data_digest(path: Path) -> str:
    """Return 12 hexadecimal digits over the names and contents of all files of a folder, or of one file."""
    if path.is_file():
        return _digest([(path.name, path)])
    files = sorted(file for file in path.rglob("*") if file.is_file())
    return _digest((file.relative_to(path).as_posix(), file) for file in files)


def text_digest(*texts: str) -> str:
    """Return 12 hexadecimal digits over texts."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:_DIGITS]


def _digest(files: Iterable[tuple[str, Path]]) -> str:
    whole = hashlib.sha256()
    for name, file in files:
        whole.update(f"{name}\0{hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return whole.hexdigest()[:_DIGITS]


@cache
def _imported_files(file: Path, root: Path) -> tuple[Path, ...]:
    found: list[Path] = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for name in node.names:
                found += _files_of(name.name, root)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            found += _files_of(node.module, root)
            for name in node.names:
                found += _files_of(f"{node.module}.{name.name}", root)
    return tuple(found)


def _files_of(module: str, root: Path) -> Iterator[Path]:
    """Yield a module's file and those of the packages around it; nothing for what is not ours."""
    parts = module.split(".")
    if parts[0] == "fedmedclip" and len(parts) > 1 and parts[1] in ROOMS:
        parts = parts[1:]
    elif parts[0] not in {"benchmarks", "fedmedclip", "phantom_clip"}:
        return
    path = root.joinpath(*parts)
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    if path.is_dir() and not file.exists():
        file = path / "__main__.py"
    if not file.exists():
        return
    yield file
    for depth in range(1, len(parts)):
        if (around := root.joinpath(*parts[:depth]) / "__init__.py").exists():
            yield around
