"""The key that signs bundles and heads files: a file's, or the user's own."""

import sys
from pathlib import Path

from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.signature import SigningKey, load_or_create_signing_key
from fedmedclip.protocol.trust.pins import own_key, pin_where_possible
from fedmedclip.protocol.visible import visible


def signing_key(file: Path | None) -> SigningKey:
    """Return the key in `file`, or the user's own, made when it does not exist and trusted from then on.

    Raises InvalidInputError when it cannot be used or made.
    """
    if file is None:
        return own_key()
    key = load_or_create_signing_key(file)
    pin_where_possible(key.public_key, f"signing key {file.resolve()}")
    return key


def signing_key_if_possible(file: Path | None, what: str) -> SigningKey | None:
    """Return the key in `file`, or the user's own; None, which is said of `what`, where none can be kept.

    Raises InvalidInputError when the one in `file` cannot be used or made.
    """
    try:
        return signing_key(file)
    except InvalidInputError as error:
        if file is not None:
            raise
        print(f"the {what} will not be signed: {visible(error)}", file=sys.stderr)
        return None
