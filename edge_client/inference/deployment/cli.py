"""`fedmedclip deploy`."""

from pathlib import Path
from typing import Annotated

import typer

from fedmedclip.edge_client.options import BundleOption, HeadsOption, InsecureOption, JsonOption, KeyOption
from fedmedclip.protocol.paths import checked
from fedmedclip.protocol.visible import visible


def deploy_command(
    bundle: BundleOption,
    out: Annotated[
        Path,
        typer.Option("--out", "-o", help="The ONNX file to write.", callback=checked("--out", "output file")),
    ],
    heads: HeadsOption = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that exists.")] = False,
    key: KeyOption = None,
    insecure: InsecureOption = False,
    as_json: JsonOption = False,
) -> None:
    """Make one ONNX file that classifies: uint8 images in, probabilities out, with nothing of ours to run.

    With a site's heads it holds the private head, so it stays with that site.
    """
    from fedmedclip.edge_client.inference.deployment.deploy import deploy
    from fedmedclip.protocol.trust.decision import trust_of_user

    trust = trust_of_user(key or (), insecure=insecure)
    written = deploy(bundle, heads, out, force=force, trust=trust)
    if as_json:
        from fedmedclip.protocol.json_output import print_json

        print_json(written)
        return
    print(f"model    {visible(written.path)}, {written.bytes / 1e6:.1f} MB")
    print(f"outputs  {', '.join(written.outputs)}")
    print(f"checked  as `fedmedclip predict` to {written.largest_difference:.1g} on {written.images} images")
