"""Who vouches for a heads file: an Ed25519 signature inside it, over all else that is in it.

The metadata of the safetensors file has, beside `fedmedclip`, the entry

    "fedmedclip.signature":"<192 hexadecimal digits>"

written so, without a blank: the signer's public key, 32 bytes, and the signature, 64 bytes, over

    b"fedmedclip heads" 0x00 <SHA-256 of the whole file with 192 times the digit 0 in their place>

so that one file is all that is copied, and any reader of safetensors reads it.
"""

import hashlib
import re
from pathlib import Path
from typing import Any

import msgspec

from fedmedclip.protocol.errors import HeadError
from fedmedclip.protocol.new_files import write_new_file
from fedmedclip.protocol.paths import open_regular_file
from fedmedclip.protocol.signature import PUBLIC_KEY_BYTES, SIGNATURE_BYTES, SigningKey, is_signed_by

SIGNATURE_KEY = "fedmedclip.signature"
HEADER_LIMIT = 1 << 20
"""Bytes. A header names some twenty arrays and the classes; more than this is not a heads file."""
_DOMAIN = b"fedmedclip heads\0"
_HASHED_AT_ONCE = 1 << 20
_DIGITS = 2 * (PUBLIC_KEY_BYTES + SIGNATURE_BYTES)
_NO_DIGITS = b"0" * _DIGITS
# In a text of JSON the quotes would have a backslash before them, so this stands nowhere else.
_MARK = f'"{SIGNATURE_KEY}":"'.encode()
_SIGNED = re.compile(_MARK + b'([0-9a-f]{%d})"' % _DIGITS)


def signed_heads(encoded: bytes, key: SigningKey) -> bytes:
    """Return a safetensors file with this key's signature in it, in the place of one that was there.

    Raises HeadError for what is no safetensors file.
    """
    header_bytes, arrays = _parts(encoded)
    try:
        header: dict[str, Any] = msgspec.json.decode(header_bytes, type=dict[str, Any])
        header["__metadata__"] = {**header["__metadata__"], SIGNATURE_KEY: _NO_DIGITS.decode()}
    except (msgspec.MsgspecError, KeyError, TypeError, RecursionError) as error:
        raise HeadError("its header cannot be read; copy it again") from error
    blank = msgspec.json.encode(header)
    blank += b" " * (-len(blank) % 8)
    size = len(blank).to_bytes(8, "little")
    signature = key.sign(_DOMAIN + hashlib.sha256(size + blank + arrays).digest())
    place = blank.index(_MARK) + len(_MARK)
    digits = (key.public_key + signature).hex().encode()
    return size + blank[:place] + digits + blank[place + _DIGITS :] + arrays


def sign_heads_file(path: Path, key: SigningKey) -> None:
    """Sign a heads file where it lies; a signature in it is replaced. Raises HeadError."""
    try:
        with open_regular_file(path) as file:
            encoded = file.read()
        write_new_file(path, signed_heads(encoded, key), private=True)
    except HeadError as error:
        raise HeadError(f"heads file {path} cannot be signed: {error}") from error
    except OSError as error:
        raise HeadError(f"heads file {path} cannot be signed: {error.strerror or error}") from error


def heads_signer(path: Path) -> bytes | None:
    """Return the public key (32 raw bytes) that signed a heads file, None when it is not signed.

    Raises HeadError when the file cannot be read, or has a signature that is not that of its content.
    """
    try:
        with open_regular_file(path) as file:
            size = file.read(8)
            announced = int.from_bytes(size, "little")
            header = file.read(announced) if announced <= HEADER_LIMIT else b""
            if _MARK not in header:
                return None
            found = _SIGNED.search(header)
            if found is not None and header.count(_MARK) == 1:
                signed = bytes.fromhex(found[1].decode())
                public_key, signature = signed[:PUBLIC_KEY_BYTES], signed[PUBLIC_KEY_BYTES:]
                hashed = hashlib.sha256(size)
                hashed.update(header[: found.start(1)] + _NO_DIGITS + header[found.end(1) :])
                while piece := file.read(_HASHED_AT_ONCE):
                    hashed.update(piece)
                if is_signed_by(public_key, signature, _DOMAIN + hashed.digest()):
                    return public_key
    except OSError as error:
        raise HeadError(f"cannot read heads file {path}: {error.strerror or error}") from error
    raise HeadError(
        f"the signature in heads file {path} is not that of its content; copy it again from who signed it"
    )


def _parts(encoded: bytes) -> tuple[bytes, bytes]:
    """Return header and arrays of a safetensors file; what is none has an empty header."""
    size = int.from_bytes(encoded[:8], "little")
    if size > min(HEADER_LIMIT, len(encoded) - 8):
        return b"", encoded
    return encoded[8 : 8 + size], encoded[8 + size :]
