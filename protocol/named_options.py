"""Names with options, of codecs and aggregation rules: `lowrank:rank=8,bits=4`, `trimmed_mean:share=0.2`."""

from dataclasses import dataclass, field
from typing import ClassVar

from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.near_names import did_you_mean


@dataclass(frozen=True)
class NameWithOptions:
    """A name taken apart. Each `take` removes a parameter, and `finish` refuses what nobody took."""

    kind: ClassVar[str] = "name"

    name: str
    preset: str
    parameters: dict[str, str] = field(default_factory=dict)
    known: list[str] = field(default_factory=list)

    @property
    def _where(self) -> str:
        return f"{self.kind} {self.name!r}"

    def has(self, parameter: str) -> bool:
        """Whether a value is given for a parameter of this name."""
        self.known.append(parameter)
        return parameter in self.parameters

    def take_integer(self, parameter: str, default: int, allowed: range | tuple[int, ...]) -> int:
        """Return the integer given for a parameter, or its default; InvalidInputError when not allowed."""
        text = self._take(parameter) or str(default)
        if not text.isdecimal() or int(text) not in allowed:
            choice = (
                f"from {allowed.start} to {allowed.stop - 1}"
                if isinstance(allowed, range)
                else f"one of {', '.join(map(str, allowed))}"
            )
            raise InvalidInputError(f"{self._where}: {parameter} is {text!r}, it must be {choice}")
        return int(text)

    def take_number(self, parameter: str, default: float | None, low: float, high: float) -> float | None:
        """Return the number given for a parameter, or its default; InvalidInputError outside low to high."""
        text = self._take(parameter)
        if text is None:
            return default
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not low <= value <= high:
            raise InvalidInputError(
                f"{self._where}: {parameter} is {text!r}, it must be a number from {low:g} to {high:g}"
            )
        return value

    def take_choice(self, parameter: str, choices: tuple[str, ...]) -> str:
        """Return the word given for a parameter, the first choice when it is absent."""
        text = self._take(parameter) or choices[0]
        if text not in choices:
            raise InvalidInputError(
                f"{self._where}: {parameter} is {text!r}, it must be one of {', '.join(choices)}"
                + did_you_mean(text, choices)
            )
        return text

    def finish(self) -> None:
        """Raise InvalidInputError for parameters that this name does not have."""
        if unknown := sorted(self.parameters):
            known = list(dict.fromkeys(self.known))
            raise InvalidInputError(
                f"{self._where}: {self.preset!r} has no parameter {', '.join(unknown)}"
                f"{did_you_mean(unknown[0], known)} (known: {', '.join(known) or 'none'})"
            )

    def _take(self, parameter: str) -> str | None:
        """Return the text given for a parameter, which is then settled, or None."""
        self.known.append(parameter)
        return self.parameters.pop(parameter, None)


def taken_apart(kind: str, name: str, example: str) -> tuple[str, dict[str, str]]:
    """Return what stands before the colon of NAME or NAME:KEY=VALUE,..., and the values by key.

    Raises InvalidInputError when it is neither; `kind` and `example` are for its words.
    """
    preset, colon, rest = name.partition(":")
    parameters: dict[str, str] = {}
    for part in rest.split(",") if colon else []:
        key, equals, value = part.partition("=")
        if not (key and equals and value) or key in parameters:
            raise InvalidInputError(
                f"{kind} {name!r}: {part!r} is not a parameter; write for example {example}"
            )
        parameters[key] = value
    return preset, parameters
