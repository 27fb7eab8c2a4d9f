"""`fedmedclip adapt`."""

import sys
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

# A blank line between two keeps each on a line of its own.
EXAMPLES = """
Without labels:

fedmedclip adapt -b bundle -H clinic.heads scans/ -o heads.safetensors

With a few labels, after a person has filled in the list:

fedmedclip adapt -b bundle -H clinic.heads scans/ --labels-to list.csv

fedmedclip adapt -b bundle -H clinic.heads scans/ --labels list.csv -o heads.safetensors
"""


def adapt_command(
    images: Annotated[list[str], typer.Argument(help="Image files, folders or globs.", metavar="IMAGES...")],
    bundle: BundleOption,
    heads: Annotated[
        Path,
        typer.Option(
            "--heads",
            "-H",
            help="Heads of the federation, as `fedmedclip aggregator heads` or a site writes them.",
            callback=checked("--heads", "file"),
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Write the adapted heads here; they are this site's own. Default: only say what changes.",
            callback=OutputCallback,
        ),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            help="CSV of file,label with labels of some of the images; without a label a row does not count.",
            callback=checked("--labels", "file"),
        ),
    ] = None,
    labels_to: Annotated[
        Path | None,
        typer.Option(
            help="Write a new CSV of file,label here: the images that are most worth a label.",
            callback=OutputCallback,
        ),
    ] = None,
    label_these: Annotated[int, typer.Option(min=1, max=4096, help="How many images that are.")] = 16,
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
    """Fit a federation's head to your own images, labelled or not: offline, in seconds.

    Nothing is sent. Which head answers is decided by the images: where the adapted one agrees with nothing
    else, it is not believed, and zero-shot or the federation's head is kept.
    """
    from fedmedclip.edge_client.adaptation.adaptation import Wanted, adapt_to_images
    from fedmedclip.edge_client.images.readers.settings import ReaderSettings, parse_window
    from fedmedclip.protocol.trust.decision import trust_of_user
    from fedmedclip.protocol.trust.signing import signing_key_if_possible

    trust = trust_of_user(key or (), insecure=insecure)
    signer = None if output is None else signing_key_if_possible(signing_key, "heads file")
    findings = adapt_to_images(
        images,
        bundle,
        heads,
        Wanted(output=output, key=signer, force=force, labels_list=labels_to, to_label=label_these),
        trust,
        labels_file=labels,
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
    from fedmedclip.edge_client.adaptation.tables import print_findings

    print_findings(findings)
