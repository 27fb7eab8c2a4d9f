"""`fedmedclip calibrate`."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from fedmedclip.edge_client.options import (
    BundleOption,
    Frames,
    FramesOption,
    InsecureOption,
    KeyOption,
    OutputCallback,
    StrictOption,
    ThreadsOption,
    WindowOption,
)
from fedmedclip.protocol.paths import checked


class Kind(StrEnum):
    """The score of prediction sets."""

    LAC = "lac"
    APS = "aps"


def calibrate_command(
    data: Annotated[
        Path,
        typer.Argument(
            help="Labelled images that the heads have not learnt: folder of class folders, CSV of "
            "path,label, or .npz archive.",
            metavar="DATA",
        ),
    ],
    bundle: BundleOption,
    heads: Annotated[
        Path,
        typer.Option(
            "--heads",
            "-H",
            help="Heads of a site, or of the centre.",
            callback=checked("--heads", "file"),
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            help="Write the same heads here with what the images tell; they are this site's own.",
            callback=OutputCallback,
        ),
    ],
    level: Annotated[
        float, typer.Option(min=0.5, max=0.999, help="How often a prediction set is to hold the true class.")
    ] = 0.9,
    kind: Annotated[
        Kind, typer.Option(help="lac: the smallest sets; aps: larger where images are hard.")
    ] = Kind.LAC,
    class_conditional: Annotated[
        bool,
        typer.Option(
            "--class-conditional", help="The level holds for each class; takes images enough of each."
        ),
    ] = False,
    false_alarms: Annotated[
        float,
        typer.Option(
            min=1e-6, max=0.1, help="The share of images like these that may be called unlike them."
        ),
    ] = 0.01,
    groups: Annotated[
        Path | None,
        typer.Option(
            help="CSV of file,group: which images are of one patient. Default: groups.csv beside them.",
            callback=checked("--groups", "file"),
        ),
    ] = None,
    features: Annotated[
        Path | None,
        typer.Option(
            help="Keep embeddings in this file, such as a site's features.db: the next time is quick.",
            callback=checked("--features", "new file"),
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace heads that exist.")] = False,
    signing_key: Annotated[
        Path | None,
        typer.Option(
            help="Sign the heads with the private key in this file. Default: this user's own key.",
            callback=checked("--signing-key", "new file"),
            show_default=False,
        ),
    ] = None,
    threads: ThreadsOption = None,
    frames: FramesOption = Frames.AUTO,
    window: WindowOption = "1",
    strict: StrictOption = False,
    key: KeyOption = None,
    insecure: InsecureOption = False,
) -> None:
    """Let heads say which classes they cannot rule out, and when an image is unlike what was seen: offline.

    Labelled images of your own tell it; the heads stay as they are.
    """
    from fedmedclip.edge_client.calibration.calibration import Destination, calibrate_to_images
    from fedmedclip.edge_client.heads.assurance import AssuranceSettings
    from fedmedclip.edge_client.images.readers.settings import ReaderSettings, parse_window
    from fedmedclip.protocol.trust.decision import trust_of_user
    from fedmedclip.protocol.trust.signing import signing_key_if_possible

    trust = trust_of_user(key or (), insecure=insecure)
    findings = calibrate_to_images(
        data,
        bundle,
        heads,
        Destination(output=output, key=signing_key_if_possible(signing_key, "heads file"), force=force),
        trust,
        AssuranceSettings(level, kind.value, class_conditional, false_alarms),
        groups_file=groups,
        features_file=features,
        settings=ReaderSettings(frames.value, parse_window(window)),
        strict=strict,
        threads=threads,
    )
    for path, reason in findings.skipped.items():
        print(f"skipped {path}: {reason}", file=sys.stderr)
    if json:
        import msgspec

        print(msgspec.json.format(msgspec.json.encode(findings), indent=2).decode())
        return
    from fedmedclip.edge_client.calibration.tables import print_findings

    print_findings(findings)
