"""Who vouches for a bundle: an Ed25519 signature beside its manifest, which names the hash of each file.

`manifest.sig` is the signer's public key, 32 bytes, and the signature, 64 bytes, over

    b"fedmedclip bundle" 0x00 <the bytes of manifest.json>

so a bundle's signature is none of a message of the protocol, should one key ever sign both. The manifest,
which it signs, does not name it.
"""

import hashlib
from pathlib import Path

from fedmedclip.protocol.bundle.bundle import MANIFEST, open_bundle
from fedmedclip.protocol.errors import BundleError, InvalidInputError
from fedmedclip.protocol.new_files import write_new_file
from fedmedclip.protocol.paths import open_regular_file, path_fault
from fedmedclip.protocol.signature import PUBLIC_KEY_BYTES, SIGNATURE_BYTES, SigningKey, is_signed_by
from fedmedclip.protocol.text_files import read_text_file

SIGNATURE_FILE = "manifest.sig"
_DOMAIN = b"fedmedclip bundle\0"


def sign_bundle(folder: Path, key: SigningKey) -> None:
    """Write `manifest.sig` into a bundle whose files were verified first; a signature there is replaced.

    Raises BundleError as `open_bundle` does.
    """
    open_bundle(folder)
    signature = key.sign(_DOMAIN + (folder / MANIFEST).read_bytes())
    write_new_file(folder / SIGNATURE_FILE, key.public_key + signature)


def signer(folder: Path, digest: bytes | None = None) -> bytes | None:
    """Return the public key (32 raw bytes) that signed the bundle, None when it is not signed.

    With the `digest` of the bundle as it was opened, the signature has to be of that manifest. Raises
    BundleError when there is a signature that does not fit the manifest.
    """
    path = folder / SIGNATURE_FILE
    try:
        with open_regular_file(path) as file:
            content = file.read(PUBLIC_KEY_BYTES + SIGNATURE_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BundleError(f"bundle file {path} cannot be read ({error.strerror})") from error
    public_key, signature = content[:PUBLIC_KEY_BYTES], content[PUBLIC_KEY_BYTES:]
    manifest = (folder / MANIFEST).read_bytes()
    if digest not in (None, hashlib.sha256(manifest).digest()):
        raise BundleError(f"{folder / MANIFEST} was replaced while it was read; try again")
    if len(signature) != SIGNATURE_BYTES or not is_signed_by(public_key, signature, _DOMAIN + manifest):
        raise BundleError(
            f"the signature {path} is not that of this {MANIFEST}; copy the bundle again from who signed it, "
            "or if you changed it yourself, sign it again with `fedmedclip bundle sign`"
        )
    return public_key


def require_signer(folder: Path, public_key: bytes) -> None:
    """Raise BundleError unless this key signed the bundle."""
    found = signer(folder)
    if found is None:
        raise BundleError(f"bundle {folder} is not signed; expected a signature of {public_key.hex()}")
    if found != public_key:
        raise BundleError(
            f"bundle {folder} is signed by {found.hex()}, expected {public_key.hex()}; do not use it"
        )


def read_public_key(text: str, what: str = "--key") -> bytes:
    """Return the key that 64 hexadecimal digits, or a file that holds them, name.

    Raises InvalidInputError, which names `what` gave it, for anything else.
    """
    digits = text
    if len(text) != 2 * PUBLIC_KEY_BYTES and Path(text).is_file():
        digits = read_text_file(Path(text), what).strip()
    try:
        key = bytes.fromhex(digits)
    except ValueError:
        key = b""
    if len(key) != PUBLIC_KEY_BYTES:
        raise InvalidInputError(
            f"{what} {text}: expected 64 hexadecimal digits, as `bundle sign` prints them, or a file with "
            "them" + ("" if Path(text).is_file() else f"; as a file, {path_fault(Path(text), 'file')}")
        )
    return key
