"""Values as MessagePack and JSON have them, changed in one to three places."""

from random import Random
from typing import Any

_HOSTILE: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 255, 1 << 14, 1 << 16, 1 << 20, 1_000_000, 1 << 28, (1 << 31) - 1,
    (1 << 53) + 1, (1 << 63) - 1, (1 << 64) - 1, -(1 << 63), 0.5, -0.0, 1e308, 5e-324,
    float("nan"), float("inf"), 1 << 32,
    "", "a", "/", "..", "\0", "x\ny", "\u202e", "z" * 65, "z" * 5000, b"", b"\0", bytes(8), bytes(16),
    bytes(32), bytes(33), b"\xff" * 64, bytes(1024), [], {}, [[]], {"a": {}}, [None] * 2000, [0] * 20_000,
)  # fmt: skip
_MOST_DEPTH = 500


def mutated_tree(tree: Any, other: Any, draw: Random) -> Any:
    """Return a changed copy of a tree of lists, dicts and leaves; parts may come from another tree."""
    for _ in range(draw.choice((1, 1, 2, 3))):
        tree = _with_change(tree, other, draw, 0)
    return tree


def _with_change(tree: Any, other: Any, draw: Random, depth: int) -> Any:
    """Walk down to a place, where something changes."""
    if isinstance(tree, list | dict) and tree and draw.random() < 0.85 and depth < _MOST_DEPTH:
        keys = list(tree) if isinstance(tree, dict) else range(len(tree))
        copy: Any = tree.copy()
        key = draw.choice(keys)
        if draw.random() < 0.2:
            return _rearranged(copy, key, other, draw)
        copy[key] = _with_change(copy[key], other, draw, depth + 1)
        return copy
    return _changed(tree, other, draw)


def _rearranged(copy: Any, key: Any, other: Any, draw: Random) -> Any:
    if isinstance(copy, dict):
        value = copy.pop(key)
        if draw.random() < 0.5:
            copy[draw.choice(("", "a", f"{key}x"[:64], "\0"))] = value
        return copy
    match draw.randrange(4):
        case 0:
            del copy[key]
        case 1:
            copy[key:key] = [copy[key]] * draw.choice((1, 2, 300))
        case 2:
            place = draw.randrange(len(copy))
            copy[key], copy[place] = copy[place], copy[key]
        case _:
            copy.insert(key, _part_of(other, draw))
    return copy


def _changed(leaf: Any, other: Any, draw: Random) -> Any:
    choice = draw.randrange(8)
    if choice < 2:
        return draw.choice(_HOSTILE)
    if choice == 2:
        return _part_of(other, draw)
    if choice == 3:
        nested: Any = leaf
        for _ in range(draw.choice((1, 50, 400))):
            nested = [nested]
        return nested
    match leaf:
        case bool() | None:
            return not leaf
        case int():
            return leaf + draw.choice((-1, 1, 2, 1 << 10, -leaf, leaf))
        case float():
            return leaf * draw.choice((-1.0, 0.0, 1e-300, 1e300, 2.0))
        case bytes() if leaf:
            place = draw.randrange(len(leaf))
            return draw.choice(
                (leaf[:place], leaf + leaf[: place + 1], leaf[:place] + draw.randbytes(1) + leaf[place + 1 :])
            )
        case str() if leaf:
            place = draw.randrange(len(leaf))
            return (
                leaf[:place]
                + draw.choice(("", "\0", "é", "\u2028", "%s", "{}", "9" * 40))
                + leaf[place + 1 :]
            )
    return draw.choice(_HOSTILE)


def _part_of(tree: Any, draw: Random) -> Any:
    while isinstance(tree, list | dict) and tree and draw.random() < 0.7:
        tree = draw.choice(list(tree.values()) if isinstance(tree, dict) else tree)
    return tree
