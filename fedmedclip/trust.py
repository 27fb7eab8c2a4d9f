"""`fedmedclip trust`: the keys whose bundles and heads are used on this machine."""

from typing import Annotated

import typer

from fedmedclip.edge_client.options import JsonOption
from fedmedclip.protocol.visible import visible


def trust_command(
    key: Annotated[
        str | None,
        typer.Argument(
            help="A public key: 64 hexadecimal digits, or a file with them. Without one, the trusted are "
            "listed.",
            metavar="[KEY]",
            show_default=False,
        ),
    ] = None,
    note: Annotated[str, typer.Option(help="Whose key it is, for the list.")] = "",
    remove: Annotated[bool, typer.Option("--remove", help="Trust it no longer.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Trust a key: bundles and heads that it signed are used by this user, others are refused.

    Compare the key with what its owner says by another way than the one that the bundle came. The keys lie in
    the user's configuration folder (XDG_CONFIG_HOME, by default ~/.config), away from every bundle.
    """
    from fedmedclip.protocol.bundle.signature import read_public_key
    from fedmedclip.protocol.errors import InvalidInputError
    from fedmedclip.protocol.json_output import print_json
    from fedmedclip.protocol.trust.pins import pin, pins, pins_folder, unpin

    if key is None:
        if remove or note:
            raise InvalidInputError("say which key: fedmedclip trust KEY (`fedmedclip trust` lists them)")
        if as_json:
            print_json({"trusted": {known.hex(): words for known, words in pins().items()}})
            return
        for known, words in pins().items():
            print(f"{known.hex()}  {words}")
        return
    public_key = read_public_key(key, "KEY")
    if remove:
        unpin(public_key)
        if as_json:
            print_json({"key": public_key.hex(), "trusted": False})
            return
        print(f"no longer trusted: {public_key.hex()}")
    else:
        before = pins().get(public_key)
        pin(public_key, note or before or f"added with `fedmedclip trust`, {public_key.hex()[:8]}")
        if as_json:
            print_json({"key": public_key.hex(), "trusted": True, "folder": pins_folder()})
            return
        print(f"trusted: {public_key.hex()}, in {visible(pins_folder())}")
