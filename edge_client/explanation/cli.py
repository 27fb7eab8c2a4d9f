"""`fedmedclip explain`."""

from pathlib import Path
from typing import Annotated

import typer

from fedmedclip.edge_client.options import (
    BundleOption,
    Frames,
    FramesOption,
    HeadsOption,
    InsecureOption,
    KeyOption,
    OutputCallback,
    ThreadsOption,
    WindowOption,
)
from fedmedclip.protocol.paths import checked


def explain_command(
    image: Annotated[str, typer.Argument(help="One image file; scan.dcm#frame=3 is its third frame.")],
    bundle: BundleOption,
    heads: HeadsOption = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Write a picture (PNG) of the regions here. It shows the image.",
            callback=OutputCallback,
        ),
    ] = None,
    site: Annotated[
        Path | None,
        typer.Option(
            help="The site's own site.toml: also name its nearest training images. Only at that site.",
            callback=checked("--site", "file"),
        ),
    ] = None,
    nearest: Annotated[int, typer.Option(min=1, max=1000, help="How many of them.")] = 5,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a picture that exists.")] = False,
    seconds: Annotated[
        float | None,
        typer.Option(min=0, help="Leave finer regions out when they would take longer. Default: none."),
    ] = None,
    threads: ThreadsOption = None,
    frames: FramesOption = Frames.AUTO,
    window: WindowOption = "1",
    key: KeyOption = None,
    insecure: InsecureOption = False,
) -> None:
    """Say which regions of an image carry its answer, offline. Research use only.

    Parts of the image are blurred, one after the other: where that costs the answer most, it was looked for.
    """
    from fedmedclip.edge_client.explanation.command import run_explanation
    from fedmedclip.edge_client.images.readers.settings import ReaderSettings, parse_window

    run_explanation(
        image,
        bundle,
        heads,
        output,
        site=site,
        neighbours=nearest,
        as_json=json,
        force=force,
        seconds=seconds,
        threads=threads,
        settings=ReaderSettings(frames.value, parse_window(window)),
        keys=tuple(key or ()),
        insecure=insecure,
    )
