"""Only what a trusted key signed is used, unless a person says otherwise."""

from pathlib import Path

import numpy as np
import pytest

from fedmedclip.protocol.bundle.bundle import MANIFEST
from fedmedclip.protocol.bundle.signature import SIGNATURE_FILE, sign_bundle
from fedmedclip.protocol.errors import BundleError, HeadError, InvalidInputError
from fedmedclip.protocol.heads.heads_file import HeadsMetadata, write_heads_file
from fedmedclip.protocol.roster.chain import found, open_roster
from fedmedclip.protocol.roster.entries import KeyRotated
from fedmedclip.protocol.signature import SigningKey, new_signing_key
from fedmedclip.protocol.trust.decision import (
    INSECURE_VARIABLE,
    KEYS_VARIABLE,
    Trust,
    trust_of_site,
    trust_of_user,
    trusted_keys,
    words_of_signer,
)
from fedmedclip.protocol.trust.pins import pin
from tests.edge_client.conftest import write_tiny_bundle

CENTRE, OTHER = new_signing_key(), new_signing_key()


@pytest.fixture(autouse=True)
def _nobody_says_insecure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(INSECURE_VARIABLE)


def signed_by(folder: Path, key: SigningKey | None):
    """Write a bundle and heads, with this key's signature."""
    bundle = write_tiny_bundle(folder / "bundle")
    if key is not None:
        sign_bundle(bundle.folder, key)
    metadata = HeadsMetadata(1, "fedclip", "trial", "", 1, bundle.digest.hex(), ["a", "b"])
    write_heads_file(folder / "heads", metadata, {"a": np.ones(3, np.float32)}, None, key)
    return bundle, folder / "heads"


def assert_refused(trust: Trust, bundle, heads: Path, words: str) -> None:
    for error, check, what in (
        (BundleError, lambda: trust.require_bundle(bundle), f"bundle {bundle.folder} "),
        (HeadError, lambda: trust.require_heads(heads), f"heads {heads} "),
    ):
        with pytest.raises(error, match=words) as refusal:
            check()
        assert str(refusal.value).startswith(what)
        assert "\n" not in str(refusal.value)


def assert_used(trust: Trust, bundle, heads: Path) -> None:
    trust.require_bundle(bundle)
    trust.require_heads(heads)


def test_unsigned_is_refused_with_what_to_do(tmp_path: Path) -> None:
    bundle, heads = signed_by(tmp_path, None)
    assert_refused(
        trust_of_user(), bundle, heads, "is not signed.*fedmedclip (bundle|heads) sign.*--insecure$"
    )
    assert_refused(
        trust_of_user([CENTRE.public_key.hex()]), bundle, heads, "is not signed, and --key asks for"
    )
    pinned = trust_of_site(CENTRE.public_key.hex())
    assert_refused(pinned, bundle, heads, "is not signed, and aggregator_key in .site. asks for.*the centre")


def test_a_stranger_is_refused_until_trusted(tmp_path: Path) -> None:
    bundle, heads = signed_by(tmp_path, CENTRE)
    hexadecimal = CENTRE.public_key.hex()
    assert_refused(
        trust_of_user(), bundle, heads, f"is signed by {hexadecimal}.*fedmedclip trust {hexadecimal}$"
    )
    pin(OTHER.public_key, "another")
    assert_refused(trust_of_user(), bundle, heads, f"fedmedclip trust {hexadecimal}$")
    pin(CENTRE.public_key, "the centre")
    assert_used(trust_of_user(), bundle, heads)


def test_an_option_asks_for_its_keys_alone(tmp_path: Path) -> None:
    bundle, heads = signed_by(tmp_path, CENTRE)
    pin(CENTRE.public_key, "the centre")
    assert_refused(trust_of_user([OTHER.public_key.hex()]), bundle, heads, "--key asks for")
    (tmp_path / "key").write_text(CENTRE.public_key.hex() + "\n")
    assert_used(trust_of_user([OTHER.public_key.hex(), str(tmp_path / "key")]), bundle, heads)
    with pytest.raises(InvalidInputError, match="--insecure for none"):
        trust_of_user(["ab" * 32], insecure=True)


def test_keys_from_the_environment_are_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle, heads = signed_by(tmp_path, CENTRE)
    monkeypatch.setenv(KEYS_VARIABLE, f"{OTHER.public_key.hex()}, {CENTRE.public_key.hex()},")
    assert_used(trust_of_user(), bundle, heads)
    monkeypatch.setenv(KEYS_VARIABLE, "centre")
    with pytest.raises(InvalidInputError, match=f"{KEYS_VARIABLE} centre: expected 64 hexadecimal"):
        trust_of_user()


def test_a_site_that_pins_a_key_takes_no_other(tmp_path: Path) -> None:
    bundle, heads = signed_by(tmp_path, OTHER)
    pin(OTHER.public_key, "trusted by this user")
    assert_refused(trust_of_site(CENTRE.public_key.hex()), bundle, heads, "ask the centre")
    assert_used(trust_of_site(OTHER.public_key.hex()), bundle, heads)
    assert_used(trust_of_site(None), bundle, heads)
    assert trusted_keys(CENTRE.public_key) == {CENTRE.public_key}


def test_a_pinned_key_is_followed_through_its_rotations(tmp_path: Path) -> None:
    first, stranger = new_signing_key(), new_signing_key()
    roster = found("trial", bytes(32), first, 1)
    roster = roster.with_entry(KeyRotated(CENTRE.public_key), first, 2, CENTRE)
    roster = open_roster(roster.with_entry(KeyRotated(OTHER.public_key), CENTRE, 3, OTHER).encoded)
    assert trusted_keys(first.public_key, roster) == {
        first.public_key, CENTRE.public_key, OTHER.public_key
    }  # fmt: skip
    assert trusted_keys(CENTRE.public_key, roster) == {CENTRE.public_key, OTHER.public_key}
    assert trusted_keys(stranger.public_key, roster) == {stranger.public_key}
    bundle, heads = signed_by(tmp_path, OTHER)
    assert_used(trust_of_site(first.public_key.hex(), roster), bundle, heads)
    assert_refused(trust_of_site(stranger.public_key.hex(), roster), bundle, heads, "ask the centre")


def test_the_environment_may_do_without_a_signature_only_where_no_key_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bundle, heads = signed_by(tmp_path, None)
    monkeypatch.setenv(INSECURE_VARIABLE, "yes")
    assert_refused(trust_of_user(), bundle, heads, "is not signed")
    monkeypatch.setenv(INSECURE_VARIABLE, "1")
    assert_used(trust_of_user(), bundle, heads)
    assert "is used although nobody trusted signed it" in caplog.text
    assert_refused(trust_of_site("ab" * 32), bundle, heads, "ask the centre")
    pin(CENTRE.public_key, "the centre")
    assert_refused(trust_of_user(), bundle, heads, "is not signed")
    # A person who says so for this one use knows more.
    assert_used(trust_of_user(insecure=True), bundle, heads)


def test_a_damaged_signature_is_refused_always(tmp_path: Path) -> None:
    bundle, heads = signed_by(tmp_path, CENTRE)
    signature = bundle.folder / SIGNATURE_FILE
    content = signature.read_bytes()
    signature.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    heads.write_bytes(heads.read_bytes()[:-1] + b"\1")
    trust = trust_of_user(insecure=True)
    with pytest.raises(BundleError, match="is not that of this manifest"):
        trust.require_bundle(bundle)
    with pytest.raises(HeadError, match="is not that of its content; copy it again"):
        trust.require_heads(heads)


def test_a_manifest_that_is_replaced_after_it_was_read_is_refused(tmp_path: Path) -> None:
    bundle, _ = signed_by(tmp_path, CENTRE)
    manifest = bundle.folder / MANIFEST
    manifest.write_bytes(manifest.read_bytes() + b"\n")
    sign_bundle(bundle.folder, CENTRE)
    with pytest.raises(BundleError, match="was replaced while it was read"):
        trust_of_user([CENTRE.public_key.hex()]).require_bundle(bundle)


def test_a_signer_in_words() -> None:
    assert words_of_signer(None) == "nobody"
    assert "whom this user does not trust" in words_of_signer(CENTRE.public_key)
    pin(CENTRE.public_key, "the centre")
    assert words_of_signer(CENTRE.public_key) == f"{CENTRE.public_key.hex()} (trusted: the centre)"
