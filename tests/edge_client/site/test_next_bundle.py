"""A site notices the bundle of the next run, whole and trusted, where its configuration says that it is."""

import shutil

import pytest

from fedmedclip.edge_client.site.next_bundle import BundleWatch
from fedmedclip.protocol.trust.decision import trust_of_site
from tests.edge_client.conftest import write_tiny_bundle


@pytest.fixture
def site(tmp_path):
    write_tiny_bundle(tmp_path / "bundle")
    file = tmp_path / "site.toml"
    file.write_text(
        '[site]\nfederation = "trial"\nname = "site-a"\nbundle = "bundle"\ndata = "images"\ninsecure = true\n'
    )
    return file


@pytest.fixture
def following(tmp_path):
    return write_tiny_bundle(tmp_path / "next", class_names=("a", "b", "c", "d"))


def watch(file, **options):
    return BundleWatch(file, trust_of_site(None, None, insecure=True), **options)


def test_it_is_found_once_it_lies_in_the_folder_or_that_is_named_anew(site, following, tmp_path, caplog):
    looking = watch(site)
    assert not looking.found(None, 0.0)
    assert not looking.found(following.digest, 0.0)
    assert "waiting for the bundle" in caplog.text
    shutil.copytree(following.folder, tmp_path / "bundle", dirs_exist_ok=True)
    # It looks now and again, not at every turn of the loop.
    assert not looking.found(following.digest, 29.0)
    assert looking.found(following.digest, 31.0)
    write_tiny_bundle(tmp_path / "bundle")
    assert not watch(site).found(following.digest, 0.0)
    site.write_text(site.read_text().replace('"bundle"', '"next"'))
    assert watch(site).found(following.digest, 0.0)


def test_one_that_is_being_copied_is_waited_for_and_said_once(site, following, tmp_path, caplog):
    shutil.copy(following.folder / "manifest.json", tmp_path / "bundle" / "manifest.json")
    looking = watch(site, every_seconds=1.0)
    for second in range(5):
        assert not looking.found(following.digest, float(second))
    assert caplog.text.count("cannot be used yet") == 1
    shutil.copytree(following.folder, tmp_path / "bundle", dirs_exist_ok=True)
    assert looking.found(following.digest, 9.0)


def test_one_that_nobody_trusted_signed_is_not_taken(site, following, caplog):
    site.write_text(site.read_text().replace('"bundle"', '"next"'))
    looking = BundleWatch(site, trust_of_site("ab" * 32, None, insecure=False))
    assert not looking.found(following.digest, 0.0)
    assert "cannot be used yet" in caplog.text


def test_a_configuration_that_cannot_be_read_ends_nobody(site, following, caplog):
    looking = watch(site)
    site.write_text("[site\n")
    assert not looking.found(following.digest, 0.0)
    assert "cannot be used yet" in caplog.text
