"""What each command's exit code says, for scripts and service managers."""

from collections.abc import Mapping
from enum import IntEnum


class ExitCode(IntEnum):
    """The codes of every command; `MEANINGS` says them in plain words, `OF_COMMANDS` where one means more."""

    FINE = 0
    ATTENTION = 1
    MISTAKE = 2
    PASSING = 75
    INTERRUPTED = 130
    TERMINATED = 143


MEANINGS: Mapping[ExitCode, str] = {
    ExitCode.FINE: "It did what it was asked to.",
    ExitCode.ATTENTION: (
        "It did its work and found something that a person should look at, as said below by command. With a "
        "traceback on standard error: a fault of this software, please report it."
    ),
    ExitCode.MISTAKE: (
        "Something has to be mended by a person first: what was typed, a setting, a file, a key, the data. "
        "One line on standard error says what, where and what to do. A service is not started again."
    ),
    ExitCode.PASSING: (
        "Something that passes by itself, such as a full disk (EX_TEMPFAIL of sysexits.h). Try again later; "
        "a service is started again."
    ),
    ExitCode.INTERRUPTED: "Ctrl-C or SIGTERM ended it in order; a second Ctrl-C at once. Nothing is lost.",
    ExitCode.TERMINATED: "A second signal, SIGTERM, ended it at once. Nothing is lost.",
}

OF_COMMANDS: Mapping[str, Mapping[ExitCode, str]] = {
    "fedmedclip serve": {
        ExitCode.FINE: "it was asked to end, by SIGTERM or Ctrl-C; what waits is answered at its next start",
    },
    "fedmedclip bundle verify": {
        ExitCode.FINE: "all is well",
        ExitCode.MISTAKE: "it is not, and why",
    },
    "fedmedclip data": {
        ExitCode.FINE: "the data was read, whatever was found in it",
        ExitCode.MISTAKE: "the data cannot be used",
    },
    "fedmedclip predict": {
        ExitCode.FINE: "images were classified; those that cannot be used are named on standard error",
        ExitCode.MISTAKE: "nothing could be classified, or, with `--strict`, an image cannot be used",
    },
    "fedmedclip evaluate": {
        ExitCode.FINE: "the images were measured; those that cannot be used are named on standard error",
        ExitCode.MISTAKE: "nothing could be measured, or, with `--strict`, an image cannot be used",
    },
    "fedmedclip doctor": {
        ExitCode.FINE: "the box is fit for its work",
        ExitCode.ATTENTION: "it is not, and what to do",
        ExitCode.MISTAKE: "bundle or configuration cannot be used",
    },
    "fedmedclip serve health": {
        ExitCode.FINE: "the service answers",
        ExitCode.ATTENTION: "it does not",
        ExitCode.MISTAKE: "the configuration cannot be read",
    },
}
"""What a code means where a command has an answer in it."""
