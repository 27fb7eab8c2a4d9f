"""A clinic that never trained: the centre writes the shared head, and the clinic classifies with it."""

import csv

import numpy as np
import pytest

from fedmedclip.aggregator.configuration import AggregatorConfiguration
from fedmedclip.aggregator.federation import begin_or_resume
from fedmedclip.aggregator.global_head import GlobalHead
from fedmedclip.aggregator.store import Store
from fedmedclip.edge_client.heads.heads_file import load_heads
from fedmedclip.protocol.codecs import delta_codec_named, encode_head
from fedmedclip.protocol.configuration import read_configuration
from fedmedclip.protocol.heads.head import head_digest
from fedmedclip.protocol.heads.heads_signature import heads_signer
from fedmedclip.protocol.link.settings import LinkSettings
from fedmedclip.protocol.signature import load_or_create_signing_key
from fedmedclip.protocol.trust.decision import trust_of_user
from fedmedclip.simulation.processes.configurations import write_aggregator_configuration
from tests.edge_client.conftest import write_tiny_bundle
from tests.edge_client.test_commands import fedmedclip, one_line


@pytest.fixture(scope="module")
def centre(tmp_path_factory, tiny_bundle):
    """Return the configuration of an aggregator that has made two versions, and the digests of all."""
    configuration_file = tmp_path_factory.mktemp("centre") / "aggregator.toml"
    write_aggregator_configuration(
        configuration_file, federation="trial", bundle=tiny_bundle.folder, method="fedmedclip", rounds=3,
        sites=1, seed=3, broker=LinkSettings(host="localhost"),
    )  # fmt: skip
    configuration = read_configuration(configuration_file, AggregatorConfiguration)
    state = configuration_file.parent / configuration.federation.state
    state.mkdir(exist_ok=True)
    load_or_create_signing_key(state / "aggregator.key")
    store = Store(state / "aggregator.db")
    plan, specification = begin_or_resume(configuration, tiny_bundle, store, bytes(32))
    head = GlobalHead(store, specification, plan.downlink_codec, plan.rounds, 1 << 17)
    digests = [head.digest]
    for number in (1, 2):
        delta = {name: array * np.float32(0.1) for name, array in specification.initial(number).items()}
        encoded = encode_head(delta_codec_named("lossless"), delta, specification)
        store.add_update(number, "site-a", 10, encoded.data)
        head.aggregate(number)
        digests.append(head.digest)
    store.close()
    return configuration_file, digests


@pytest.mark.parametrize("version", [0, 1, None])
def test_the_centre_writes_a_heads_file_that_classifies_without_extras(
    tmp_path, tiny_bundle, class_folders, centre, version
):
    configuration_file, digests = centre
    path, rows = tmp_path / "clinic.heads", tmp_path / "rows.csv"
    chosen = [] if version is None else ["--version", version]
    written = fedmedclip(
        "aggregator", "heads", "--config", configuration_file, "--output", path, *chosen, without_extras=True
    )
    assert written.returncode == 0, written.stderr
    version = 2 if version is None else version
    assert f"the shared head of version {version} of 3" in written.stdout
    assert ("not trained yet" in written.stdout) == (version == 0)
    key = load_or_create_signing_key(configuration_file.with_name("aggregator.key")).public_key
    assert f"fedmedclip trust {key.hex()}" in written.stdout
    assert heads_signer(path) == key
    trust_of_user().require_heads(path)
    heads = load_heads(path, tiny_bundle)
    # Whatever a site's file tells of its images, the centre's has none of it.
    assert heads.assurance is None
    assert (heads.version, heads.site, heads.private) == (version, "", None)
    assert head_digest(heads.shared) == digests[version]
    done = fedmedclip(
        "predict", "--bundle", tiny_bundle.folder, "--heads", path, class_folders / "glioma", "-o", rows,
        "--insecure", without_extras=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"{path}: no private head; the shared head answers alone" in done.stderr
    assert {float(row["ensemble_weight"]) for row in csv.DictReader(rows.open())} == {0.0}


def test_a_version_that_is_not_there_and_another_bundle_are_one_line(tmp_path, centre):
    configuration_file, _ = centre
    to = ["--output", tmp_path / "clinic.heads"]
    done = fedmedclip("aggregator", "heads", "--config", configuration_file, *to, "--version", 9)
    assert "version 9 is not here; the newest is 2" in one_line(done)
    other = write_tiny_bundle(tmp_path / "other", embedding_size=24).folder
    edited = configuration_file.with_name("edited.toml")
    lines = configuration_file.read_text().splitlines()
    edited.write_text(
        "\n".join(f'bundle = "{other}"' if line.startswith("bundle") else line for line in lines)
    )
    assert "name the run's bundle" in one_line(fedmedclip("aggregator", "heads", "--config", edited, *to))
    assert not (tmp_path / "clinic.heads").exists()
