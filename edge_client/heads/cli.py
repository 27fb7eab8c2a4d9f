"""`fedmedclip heads`."""

from pathlib import Path
from typing import Annotated

import typer

from fedmedclip.edge_client.options import JsonOption, SigningKeyOption
from fedmedclip.protocol.paths import checked
from fedmedclip.protocol.visible import visible

heads_app = typer.Typer(name="heads", help="See who signed a heads file, and sign it.", no_args_is_help=True)
FileArgument = Annotated[
    Path, typer.Argument(help="A heads file.", metavar="HEADS", callback=checked("HEADS", "file"))
]


@heads_app.command("show")
def show_command(file: FileArgument, as_json: JsonOption = False) -> None:
    """Print who signed a heads file, and whether this user trusts them."""
    from fedmedclip.protocol.heads.heads_signature import heads_signer
    from fedmedclip.protocol.json_output import print_json
    from fedmedclip.protocol.trust.decision import words_of_signer
    from fedmedclip.protocol.trust.pins import pins

    signer = heads_signer(file)
    if as_json:
        known = signer is not None and signer in pins()
        print_json({"heads": file, "signed_by": None if signer is None else signer.hex(), "trusted": known})
        return
    print(f"heads      {visible(file)}")
    print(f"signed by  {visible(words_of_signer(signer))}")


@heads_app.command("sign")
def sign_command(file: FileArgument, key: SigningKeyOption = None, as_json: JsonOption = False) -> None:
    """Sign a heads file where it lies, as of an older version, when you know where it is from."""
    from fedmedclip.protocol.heads.heads_signature import sign_heads_file
    from fedmedclip.protocol.json_output import print_json
    from fedmedclip.protocol.trust.signing import signing_key

    signer = signing_key(key)
    sign_heads_file(file, signer)
    if as_json:
        print_json({"heads": file, "signed_by": signer.public_key.hex()})
    else:
        print(f"signed {visible(file)} by {signer.public_key.hex()}")
