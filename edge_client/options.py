"""Options that several commands of a site or clinic device take."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from fedmedclip.protocol.console import LOG_FORMAT_HELP, LOG_FORMAT_VARIABLE, LogFormat
from fedmedclip.protocol.paths import checked


class Frames(StrEnum):
    """Which frames of a multi-frame file become images."""

    AUTO = "auto"
    FIRST = "first"
    MIDDLE = "middle"
    ALL = "all"


BundleOption = Annotated[
    Path,
    typer.Option(
        "--bundle",
        "-b",
        help="Folder that `fedmedclip export` wrote.",
        callback=checked("--bundle", "bundle"),
    ),
]
OutputCallback = checked("--output", "output file")
HeadsOption = Annotated[
    Path | None,
    typer.Option(
        "--heads",
        "-H",
        help="heads.safetensors of a site; without it, zero-shot only.",
        callback=checked("--heads", "file"),
    ),
]
PromptsOption = Annotated[
    Path | None,
    typer.Option(
        "--prompts",
        help="classes.toml with classes of your own; needs a bundle exported --with-text.",
        callback=checked("--prompts", "file", "`fedmedclip init classes` writes an example"),
    ),
]
KeyOption = Annotated[
    list[str] | None,
    typer.Option(
        help="A public key that must have signed bundle and heads: 64 hexadecimal digits or a file; may be "
        "given "
        "several times. Default: the keys that this user trusts (fedmedclip trust).",
        show_default=False,
    ),
]
InsecureOption = Annotated[
    bool, typer.Option("--insecure", help="Use bundle and heads although nobody trusted signed them.")
]
SigningKeyOption = Annotated[
    Path | None,
    typer.Option(
        "--key",
        help="File of the private key, made when it does not exist. Default: this user's own key.",
        callback=checked("--key", "new file"),
        show_default=False,
    ),
]
ProvidersOption = Annotated[
    list[str] | None,
    typer.Option(
        "--provider",
        help="What encodes, by ONNX Runtime's name such as OpenVINOExecutionProvider, with options as in "
        "NAME:OPTION=VALUE; may be given several times, the first that works is used. Default: CPU.",
        show_default=False,
    ),
]
ThreadsOption = Annotated[int | None, typer.Option(min=1, help="Threads; by default one per core.")]
FramesOption = Annotated[
    Frames,
    typer.Option(
        help="Of DICOM, NIfTI, TIFF, GIF: which frames; auto is the middle one, of a TIFF the first."
    ),
]
WindowOption = Annotated[
    str, typer.Option(help="DICOM window: its number from 1, 'range' for all values, or CENTRE,WIDTH.")
]
StrictOption = Annotated[
    bool,
    typer.Option("--strict", help="Stop with an error when a file cannot be used, instead of skipping it."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object, for programs.")]
LogFormatOption = Annotated[
    LogFormat, typer.Option("--log-format", envvar=LOG_FORMAT_VARIABLE, help=LOG_FORMAT_HELP)
]
