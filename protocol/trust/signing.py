"""The key that signs bundles and heads files: a file's, or the user's own."""

from pathlib import Path

from fedmedclip.protocol.signature import SigningKey, load_or_create_signing_key
from fedmedclip.protocol.trust.pins import own_key, pin_where_possible


def signing_key(file: Path | None) -> SigningKey:
    """Return the key in `file`, or the user's own, made when it does not exist and trusted from then on.

    Raises InvalidInputError when it cannot be used or made.
    """
    if file is None:
        return own_key()
    key = load_or_create_signing_key(file)
    pin_where_possible(key.public_key, f"signing key {file.resolve()}")
    return key
