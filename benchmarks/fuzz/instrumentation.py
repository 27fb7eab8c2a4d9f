"""Coverage of code that is imported already, for atheris: its import hook would come too late."""

from collections.abc import Callable
from types import ModuleType
from typing import Any


def instrument(module: ModuleType, function: Callable[[Any], Any]) -> None:
    """Let every function and method of a module tell the fuzzer where it has been."""
    for value in vars(module).copy().values():
        if getattr(value, "__module__", None) != module.__name__:
            continue
        for part in (value, *vars(value).copy().values()) if isinstance(value, type) else (value,):
            part = part.fget if isinstance(part, property) else part
            if hasattr(part, "__code__"):
                function(part)
