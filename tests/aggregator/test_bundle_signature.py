"""At its start the aggregator says whether sites that pin its key will take the bundle."""

import logging
from pathlib import Path

import pytest

from fedmedclip.aggregator.service import _say_who_signed
from fedmedclip.protocol.bundle.signature import sign_bundle
from fedmedclip.protocol.errors import BundleError
from fedmedclip.protocol.signature import load_or_create_signing_key, new_signing_key
from tests.edge_client.conftest import write_tiny_bundle


def test_a_bundle_that_sites_will_refuse_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bundle, key_file = write_tiny_bundle(tmp_path / "bundle"), tmp_path / "aggregator.key"
    key = load_or_create_signing_key(key_file)
    for other in (None, new_signing_key()):
        if other is not None:
            sign_bundle(bundle.folder, other)
        with caplog.at_level(logging.INFO):
            _say_who_signed(bundle, key, key_file)
        assert f"fedmedclip bundle sign {bundle.folder} --key {key_file}" in caplog.text
        caplog.clear()
    sign_bundle(bundle.folder, key)
    _say_who_signed(bundle, key, key_file)
    assert not caplog.text
    (bundle.folder / "manifest.sig").write_bytes(bytes(96))
    with pytest.raises(BundleError, match="is not that of this manifest"):
        _say_who_signed(bundle, key, key_file)
