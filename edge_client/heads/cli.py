"""`fedmedclip heads`."""

from pathlib import Path
from typing import Annotated

import typer

from fedmedclip.edge_client.options import SigningKeyOption
from fedmedclip.protocol.paths import checked
from fedmedclip.protocol.visible import visible

heads_app = typer.Typer(name="heads", help="See who signed a heads file, and sign it.", no_args_is_help=True)
FileArgument = Annotated[
    Path, typer.Argument(help="A heads file.", metavar="HEADS", callback=checked("HEADS", "file"))
]


@heads_app.command("show")
def show_command(file: FileArgument) -> None:
    """Print who signed a heads file, and whether this user trusts them."""
    from fedmedclip.protocol.heads.heads_signature import heads_signer
    from fedmedclip.protocol.trust.decision import words_of_signer

    print(f"heads      {visible(file)}")
    print(f"signed by  {visible(words_of_signer(heads_signer(file)))}")


@heads_app.command("sign")
def sign_command(file: FileArgument, key: SigningKeyOption = None) -> None:
    """Sign a heads file where it lies, as of an older version, when you know where it is from."""
    from fedmedclip.protocol.heads.heads_signature import sign_heads_file
    from fedmedclip.protocol.trust.signing import signing_key

    signer = signing_key(key)
    sign_heads_file(file, signer)
    print(f"signed {visible(file)} by {signer.public_key.hex()}")
