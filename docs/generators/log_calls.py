"""The calls that log, found in the code: their templates, or the identifiers that they give themselves."""

import ast
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType

from docs.generators.rooms import ROOT
from fedmedclip.protocol.log_events import PLACE

ROOMS = ("aggregator", "edge_client", "export", "fedmedclip", "protocol", "simulation")
# What operators see without asking for more.
_LEVELS = ("info", "warning", "error", "exception", "critical", "log")


@dataclass(frozen=True)
class LogCall:
    """A call that logs: where it stands, and how its line is known.

    `template` is None where it is no constant text, `event` where the call gives no identifier. `values` are
    the expressions that are put in, as the code has them.
    """

    place: str
    level: str
    template: str | None
    event: str | None
    values: tuple[str, ...]

    @property
    def says_nothing(self) -> bool:
        """Whether the template is nothing but values, so that only an identifier can tell what it is."""
        return self.template is None or not re.search(r"[a-z]", PLACE.sub("", self.template))


@dataclass(frozen=True)
class _Forwarder:
    """A function that logs the template that it is given at `position`, `self` not counted."""

    name: str
    position: int
    level: str


@cache
def log_calls(root: Path = ROOT, rooms: tuple[str, ...] = ROOMS) -> Sequence[LogCall]:
    """Return all calls that log above debugging, in the order of files and lines."""
    texts = {
        path.relative_to(root).as_posix(): path.read_text(encoding="utf-8")
        for room in rooms
        for path in sorted((root / room).rglob("*.py"))
    }
    # Most modules log nothing, and need not be parsed.
    trees = {place: ast.parse(text) for place, text in texts.items() if "getLogger" in text}
    forwarders: dict[str, list[_Forwarder]] = {}
    for tree in trees.values():
        for forwarder in _forwarders(tree, _loggers(tree)):
            forwarders.setdefault(forwarder.name, []).append(forwarder)
    for place, text in texts.items():
        if place not in trees and any(f".{name}(" in text for name in forwarders):
            trees[place] = ast.parse(text)
    return tuple(
        call for place in texts if place in trees for call in _calls(place, trees[place], forwarders)
    )


def _loggers(tree: ast.Module) -> set[str]:
    """Return the names of a module's loggers."""
    return {
        target.id
        for node in tree.body
        if isinstance(node, ast.Assign)
        and isinstance(node.value, ast.Call)
        and ast.unparse(node.value.func).endswith("getLogger")
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def _level(node: ast.AST, loggers: set[str]) -> str | None:
    """Return the level where a node is a function that logs, such as `log.info`."""
    if (
        isinstance(node, ast.Attribute)
        and node.attr in _LEVELS
        and isinstance(node.value, ast.Name)
        and node.value.id in loggers
    ):
        return node.attr
    return None


def _by_other_names(tree: ast.Module, loggers: set[str]) -> dict[str, str]:
    """Return the names that functions which log are given before they are called, with the level."""
    return {
        target.id: level
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and not isinstance(node.value, ast.Call)
        for inner in ast.walk(node.value)
        if (level := _level(inner, loggers)) is not None
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def _logged(
    node: ast.AST, loggers: set[str], others: Mapping[str, str] = MappingProxyType({})
) -> tuple[str, ast.Call] | None:
    """Return level and call where a node logs."""
    if not isinstance(node, ast.Call):
        return None
    level = others.get(node.func.id) if isinstance(node.func, ast.Name) else _level(node.func, loggers)
    return None if level is None else (level, node)


def _template(call: ast.Call, level: str) -> ast.expr:
    return call.args[1 if level == "log" else 0]


def _forwarders(tree: ast.Module, loggers: set[str]) -> Iterator[_Forwarder]:
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef):
            continue
        names = [argument.arg for argument in function.args.args if argument.arg != "self"]
        for node in ast.walk(function):
            if (logged := _logged(node, loggers)) is None:
                continue
            level, call = logged
            template = _template(call, level)
            if isinstance(template, ast.Name) and template.id in names:
                yield _Forwarder(function.name, names.index(template.id), level)


def _calls(place: str, tree: ast.Module, forwarders: Mapping[str, list[_Forwarder]]) -> Iterator[LogCall]:
    loggers = _loggers(tree)
    others = _by_other_names(tree, loggers)
    forwarding = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef) and function.name in forwarders
        for node in ast.walk(function)
    }
    found = []
    for node in ast.walk(tree):
        if (logged := _logged(node, loggers, others)) is not None:
            level, call = logged
            if id(node) in forwarding and isinstance(_template(call, level), ast.Name):
                continue
            skipped = 1 if level == "log" else 0
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and (forwarder := _forwarder(node, forwarders.get(node.func.attr, ()))) is not None
        ):
            level, call, skipped = forwarder.level, node, forwarder.position
        else:
            continue
        template, *values = call.args[skipped:]
        found.append(
            LogCall(
                place=f"{place}:{call.lineno}",
                level=level,
                template=_text(template),
                event=_event(call),
                values=tuple(ast.unparse(value) for value in values),
            )
        )
    yield from sorted(found, key=lambda call: int(call.place.rpartition(":")[2]))


def _forwarder(call: ast.Call, forwarders: Iterable[_Forwarder]) -> _Forwarder | None:
    """Return the function of a call's name that finds a text where it takes its template."""
    for forwarder in forwarders:
        if len(call.args) > forwarder.position and _text(call.args[forwarder.position]) is not None:
            return forwarder
    return None


def _text(node: ast.expr) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def _event(call: ast.Call) -> str | None:
    """Return the identifier that a call gives itself: `extra={"event": "..."}` or `event="..."`."""
    for keyword in call.keywords:
        given = keyword.value
        if keyword.arg == "extra" and isinstance(given, ast.Dict):
            pairs = zip(given.keys, given.values, strict=True)
            given = next(
                (value for key, value in pairs if isinstance(key, ast.Constant) and key.value == "event"),
                given,
            )
        elif keyword.arg != "event":
            continue
        if (event := _text(given)) is not None:
            return event
    return None
