"""Small faults in source text, each such as a hand might make: what a test suite should notice.

(DeMillo, Lipton and Sayward 1978, "Hints on test data selection".) A mutant differs from its module in one
place, and its lines keep their numbers. What is written for people is left as it is: log lines, the text of
f-strings, docstrings, assertions that only help the type checker; and tuned numbers, which stand under a name
in a module or class.
"""

import ast
import random
from collections.abc import Iterator
from dataclasses import dataclass

_TURNED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Lt: ast.GtE, ast.GtE: ast.Lt, ast.Gt: ast.LtE, ast.LtE: ast.Gt,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
_MOVED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt,
}  # fmt: skip

_Change = tuple[str, ast.expr | ast.stmt, ast.expr | ast.stmt]


@dataclass(frozen=True)
class Mutant:
    """One fault: `before` became `after` in `line` of `module`, a path in the repository.

    `source` is the whole of the module with it.
    """

    module: str
    line: int
    kind: str
    before: str
    after: str
    source: str

    def __str__(self) -> str:
        return f"{self.module}:{self.line}: {self.kind}: {self.before} -> {self.after}"


def mutants_of(module: str, source: str) -> list[Mutant]:
    """Return every mutant of a module's source, in the order of the places."""
    found = []
    for kind, old, new in _changes(ast.parse(source)):
        before, after = (" ".join(ast.unparse(node).split()) for node in (old, new))
        found.append(Mutant(module, old.lineno, kind, before, after, _replaced(source, old, new)))
    return sorted(found, key=lambda mutant: (mutant.line, mutant.kind, mutant.before, mutant.after))


def drawn(mutants: list[Mutant], count: int, seed: int) -> list[Mutant]:
    """Return `count` of the mutants, or all where these are fewer; the same for the same seed, in order."""
    chosen = random.Random(seed).sample(range(len(mutants)), min(count, len(mutants)))
    return [mutants[index] for index in sorted(chosen)]


def _replaced(source: str, old: ast.expr | ast.stmt, new: ast.expr | ast.stmt) -> str:
    assert old.end_lineno is not None
    assert old.end_col_offset is not None
    # Offsets of the syntax tree count bytes.
    lines = [line.encode() for line in source.splitlines(keepends=True)]
    text = ast.unparse(new) if isinstance(new, ast.stmt) else f"({ast.unparse(new)})"
    # As many lines as before, so that a traceback points where one expects.
    padding = b"\\\n" * (old.end_lineno - old.lineno) if isinstance(new, ast.expr) else b""
    first, last = lines[old.lineno - 1], lines[old.end_lineno - 1]
    middle = first[: old.col_offset] + padding + text.encode() + last[old.end_col_offset :]
    return b"".join([*lines[: old.lineno - 1], middle, *lines[old.end_lineno :]]).decode()


def _changes(tree: ast.Module) -> Iterator[_Change]:
    for node in _code_of(tree):
        match node:
            case ast.Compare(left, [operator], [right]):
                for kind, others in (("comparison turned", _TURNED), ("bound moved", _MOVED)):
                    if (other := others.get(type(operator))) is not None:
                        yield kind, node, ast.Compare(left, [other()], [right])
            case ast.BoolOp(operation, values):
                swapped = ast.Or() if isinstance(operation, ast.And) else ast.And()
                yield "and and or swapped", node, ast.BoolOp(swapped, values)
            case ast.BinOp(left, ast.Add() | ast.Sub() as sign, right):
                yield "plus and minus swapped", node, ast.BinOp(left, _other_sign(sign), right)
            case ast.AugAssign(target, ast.Add() | ast.Sub() as sign, value):
                yield "plus and minus swapped", node, ast.AugAssign(target, _other_sign(sign), value)
            case ast.Constant(bool()):
                pass
            case ast.Constant(int() | float() as number):
                yield "constant changed", node, ast.Constant(number + 1)
            case ast.Expr(ast.Call()):
                yield "call dropped", node, ast.Pass()
        yield from _negated(node)
        if isinstance(node, ast.If | ast.For | ast.While | ast.With | ast.Try | ast.match_case):
            for statement in (*node.body, *getattr(node, "orelse", ())):
                if isinstance(statement, ast.Return):
                    yield "return dropped", statement, ast.Pass()


def _negated(node: ast.AST) -> Iterator[_Change]:
    conditions = []
    if isinstance(node, ast.If | ast.While | ast.IfExp):
        conditions = [node.test]
    elif isinstance(node, ast.comprehension):
        conditions = node.ifs
    for condition in conditions:
        match condition:
            case ast.Compare(_, [_], [_]):
                pass  # It is turned already.
            case ast.UnaryOp(ast.Not(), operand):
                yield "condition negated", condition, operand
            case _:
                yield "condition negated", condition, ast.UnaryOp(ast.Not(), condition)


def _other_sign(sign: ast.operator) -> ast.operator:
    return ast.Sub() if isinstance(sign, ast.Add) else ast.Add()


def _code_of(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes below this one that a machine heeds."""
    for child in ast.iter_child_nodes(node):
        if _is_for_people(child) or (isinstance(node, ast.Module | ast.ClassDef) and _is_tuned_number(child)):
            continue
        yield child
        yield from _code_of(child)


def _is_for_people(node: ast.AST) -> bool:
    match node:
        case ast.JoinedStr() | ast.Assert():
            return True
        case ast.Expr(ast.Call(ast.Attribute(ast.Name("log")))):
            return True
    return False


def _is_tuned_number(node: ast.AST) -> bool:
    parts = (ast.Constant, ast.BinOp, ast.UnaryOp, ast.operator, ast.unaryop)
    return (
        isinstance(node, ast.Assign | ast.AnnAssign)
        and node.value is not None
        and all(isinstance(part, parts) for part in ast.walk(node.value))
    )
