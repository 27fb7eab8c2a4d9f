"""Errors in what was typed: one line, like all others, with the name that was probably meant."""

from typing import Any

import typer
from typer.core import TyperGroup

from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.near_names import did_you_mean

# The base class of all errors of usage; Typer exports its sub-class only, from wherever it has it.
_USAGE_ERROR: Any = typer.BadParameter.__mro__[1]


class OneLineGroup(TyperGroup):
    """The commands of `fedmedclip`; raises InvalidInputError where Typer would draw a box."""

    def make_context(self, *arguments: Any, **options: Any) -> Any:
        """Read the options before the command's name."""
        try:
            return super().make_context(*arguments, **options)
        except _USAGE_ERROR as error:
            raise _in_one_line(error) from error

    def invoke(self, ctx: Any) -> Any:
        """Read the command's own options and run it."""
        try:
            return super().invoke(ctx)
        except _USAGE_ERROR as error:
            raise _in_one_line(error) from error


def _in_one_line(error: Any) -> Exception:
    # A group without a command shows its help, which Typer does by such an error too.
    if type(error).__name__ == "NoArgsIsHelpError":
        return error  # type: ignore[no-any-return]
    context = error.ctx
    command = "fedmedclip" if context is None else context.command_path.removeprefix("python -m ")
    choices = getattr(getattr(getattr(error, "param", None), "type", None), "choices", ())
    typed = error.message.partition("'")[2].partition("'")[0]
    words = error.format_message().rstrip(".").replace(". Did you mean", "; did you mean")
    hint = did_you_mean(typed, [str(getattr(choice, "value", choice)) for choice in choices])
    return InvalidInputError(f"{words}{hint} (see {command} --help)")
