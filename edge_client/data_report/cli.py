"""`fedmedclip data`."""

from pathlib import Path
from typing import Annotated

import typer

from fedmedclip.edge_client.options import Frames, FramesOption, StrictOption, WindowOption
from fedmedclip.protocol.paths import checked


def data_command(
    data: Annotated[
        Path, typer.Argument(help="One site's folder of class folders, CSV of path,label, or .npz archive.")
    ],
    bundle: Annotated[
        Path | None,
        typer.Option(
            "--bundle",
            "-b",
            help="Take the classes of this bundle. Default: the data's own.",
            callback=checked("--bundle", "bundle"),
        ),
    ] = None,
    classes: Annotated[
        Path | None,
        typer.Option(
            help="Take the classes of this classes.toml.",
            callback=checked("--classes", "file", "`fedmedclip init classes` writes an example"),
        ),
    ] = None,
    groups: Annotated[
        Path | None,
        typer.Option(
            help="CSV of file,group: which images are of one patient. Default: groups.csv beside the images.",
            callback=checked("--groups", "file"),
        ),
    ] = None,
    group_column: Annotated[
        str | None,
        typer.Option(help="The column of a CSV that says it. Default: group, where there is one."),
    ] = None,
    split: Annotated[
        Path | None,
        typer.Option(
            help="Also say what this split.csv is worth; a site's lies in its state folder.",
            callback=checked("--split", "file"),
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Write data.html, with thumbnails, and data.json into this folder. They stay at the site.",
            callback=checked("--out", "new folder"),
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
    frames: FramesOption = Frames.AUTO,
    window: WindowOption = "1",
    strict: StrictOption = False,
) -> None:
    """Say what lies in a site's data: classes, sizes, copies, look-alikes, likely label errors.

    Nothing is changed, and nothing leaves this machine. Exit code 0 whatever is found; 2: the data cannot be
    used.
    """
    from fedmedclip.edge_client.data_report.classes import chosen_classes
    from fedmedclip.edge_client.data_report.report import PAGE, encoded, report_on
    from fedmedclip.edge_client.images.grouping import GroupNaming
    from fedmedclip.edge_client.images.readers.settings import ReaderSettings, parse_window

    settings = ReaderSettings(frames.value, parse_window(window))
    findings = report_on(
        data,
        chosen_classes(data, bundle, classes),
        naming=GroupNaming(group_column, groups),
        split_file=split,
        out=out,
        settings=settings,
        strict=strict,
    )
    if json:
        print(encoded(findings).decode(), end="")
        return
    from fedmedclip.edge_client.data_report.tables import print_findings
    from fedmedclip.protocol.visible import visible

    print_findings(findings)
    if out is not None:
        print(f"page with images of patients, to stay at this site: {visible(out / PAGE)}")
