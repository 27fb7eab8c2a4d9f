"""A heads file carries its signature; it is checked here as the reference says, without our code."""

import contextlib
import hashlib
import json
import struct
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load

from fedmedclip.protocol.errors import HeadError
from fedmedclip.protocol.heads.heads_file import HeadsMetadata, write_heads_file
from fedmedclip.protocol.heads.heads_signature import heads_signer, sign_heads_file, signed_heads
from fedmedclip.protocol.signature import new_signing_key

KEY = new_signing_key()
METADATA = HeadsMetadata(1, "fedclip", "trial", "", 1, "ab" * 32, ["none", 'odd "fedmedclip.signature":"'])
ARRAYS = {"a": np.arange(3, dtype=np.float32), "b": np.ones((2, 2), np.float32)}


def written(folder: Path, key=KEY) -> Path:
    path = folder / "heads.safetensors"
    write_heads_file(path, METADATA, ARRAYS, None, key)
    return path


def test_the_format_is_that_of_the_reference(tmp_path: Path) -> None:
    content = written(tmp_path).read_bytes()
    size = struct.unpack("<Q", content[:8])[0]
    digits = json.loads(content[8 : 8 + size])["__metadata__"]["fedmedclip.signature"]
    assert len(digits) == 192
    assert content.count(b'"fedmedclip.signature":"' + digits.encode()) == 1
    blank = content.replace(digits.encode(), b"0" * 192)
    public_key, signature = bytes.fromhex(digits)[:32], bytes.fromhex(digits)[32:]
    signed = b"fedmedclip heads\0" + hashlib.sha256(blank).digest()
    Ed25519PublicKey.from_public_bytes(public_key).verify(signature, signed)
    assert public_key == KEY.public_key


def test_who_signed_is_found_and_the_arrays_stay(tmp_path: Path) -> None:
    path = written(tmp_path)
    assert heads_signer(path) == KEY.public_key
    unsigned = written(tmp_path, None).read_bytes()
    assert heads_signer(path) is None
    assert signed_heads(unsigned, KEY) == signed_heads(signed_heads(unsigned, new_signing_key()), KEY)
    found = load(signed_heads(unsigned, KEY))
    assert {name: array.tolist() for name, array in found.items()} == {
        f"shared.{name}": array.tolist() for name, array in ARRAYS.items()
    }


def test_an_older_file_is_signed_where_it_lies(tmp_path: Path) -> None:
    path = written(tmp_path, None)
    sign_heads_file(path, KEY)
    assert heads_signer(path) == KEY.public_key
    other = new_signing_key()
    sign_heads_file(path, other)
    assert heads_signer(path) == other.public_key


@pytest.mark.parametrize("content", [b"", b"PNG", b"\xff" * 64, struct.pack("<Q", 4) + b"[[[["])
def test_what_is_no_heads_file_has_no_signer_and_is_not_signed(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "heads"
    path.write_bytes(content)
    assert heads_signer(path) is None
    with pytest.raises(HeadError, match=f"^heads file {path} cannot be signed"):
        sign_heads_file(path, KEY)
    assert path.read_bytes() == content


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    for check in (heads_signer, lambda path: sign_heads_file(path, KEY)):
        with pytest.raises(HeadError, match="No such file"):
            check(tmp_path / "heads")


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_no_byte_can_be_changed(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "heads.safetensors"
    content = bytearray((path if path.exists() else written(tmp_path)).read_bytes())
    where = data.draw(st.integers(0, len(content) - 1))
    content[where] ^= data.draw(st.integers(1, 255))
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    path = tmp_path / "changed"
    path.write_bytes(content)
    # Without the mark it is a file that nobody signed.
    with contextlib.suppress(HeadError):
        assert heads_signer(path) is None


def test_a_second_signature_hides_nothing(tmp_path: Path) -> None:
    content = written(tmp_path).read_bytes()
    size = struct.unpack("<Q", content[:8])[0]
    header = content[8 : 8 + size].rstrip()[:-1] + b',"fedmedclip.signature":"' + b"0" * 192 + b'"}'
    header += b" " * (-len(header) % 8)
    path = tmp_path / "two"
    path.write_bytes(struct.pack("<Q", len(header)) + header + content[8 + size :])
    with pytest.raises(HeadError, match="is not that of its content"):
        heads_signer(path)
