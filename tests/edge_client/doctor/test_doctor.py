"""`fedmedclip doctor` finds what is wrong with a box, and says what to do."""

import json
import os
import re
import shutil
import socket
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding

from fedmedclip.edge_client.doctor.broker import asks_for_certificates, own_certificates, reach
from fedmedclip.edge_client.doctor.clock import clock
from fedmedclip.edge_client.doctor.examination import examine
from fedmedclip.edge_client.doctor.finding import State, bad, good
from fedmedclip.edge_client.doctor.machine import disk, memory, processor, secrets
from fedmedclip.edge_client.doctor.table import print_table
from fedmedclip.edge_client.doctor.training import training
from fedmedclip.edge_client.doctor.work import features, split
from fedmedclip.edge_client.features.feature_store import FeatureStore
from fedmedclip.edge_client.images.split import ContentLabel, split_images
from fedmedclip.protocol.errors import BundleError
from fedmedclip.protocol.link.settings import LinkSettings
from fedmedclip.simulation.processes.brokers import MosquittoBroker
from tests.edge_client.test_commands import fedmedclip
from tests.protocol.link.test_transports import make_certificate


@pytest.fixture
def configuration(tmp_path, tiny_bundle, mosquitto, class_folders):
    path = tmp_path / "site.toml"
    path.write_text(
        f'[site]\nfederation = "trial"\nname = "site-a"\nbundle = "{tiny_bundle.folder}"\n'
        f'data = "{class_folders}"\n[broker]\nhost = "127.0.0.1"\nport = {mosquitto.port}\n'
    )
    return path


def test_a_fit_site(tmp_path, configuration):
    states = {finding.name: finding.state for finding in examine(None, configuration)}
    assert states.keys() >= {"processor", "memory", "clock", "providers", "speed", "self-test", "features"}
    assert {states[name] for name in ("MQTT", "network", "data", "training", "disk")} == {State.OK}
    assert not (tmp_path / "site-state").exists()


@pytest.mark.slow
def test_the_command_says_what_to_do_and_exits_with_1(configuration):
    configuration.write_text(re.sub('data = ".*"', 'data = "nowhere"', configuration.read_text()))
    done = fedmedclip("doctor", "--config", configuration, "--json", without_extras=True)
    report = json.loads(done.stdout)
    wrong = {
        finding["name"]: finding["advice"] for finding in report["findings"] if finding["state"] == "bad"
    }
    assert wrong.keys() == {"data", "training"}
    assert wrong["data"] == "correct site.data"
    assert report["fit"] is False
    assert done.returncode == 1


@pytest.mark.slow
def test_classes_that_the_site_would_refuse(tmp_path, configuration, class_folders):
    (class_folders / "unheard of").mkdir()
    for name in ("a.png", "b.png"):
        shutil.copy(next(class_folders.rglob("*.png")), class_folders / "unheard of" / name)
    (found,) = [finding for finding in examine(None, configuration) if finding.name == "data"]
    assert found.state is State.BAD
    assert "unheard of" in found.words


def data_finding(configuration):
    (found,) = [finding for finding in examine(None, configuration) if finding.name == "data"]
    return found


@pytest.mark.slow
def test_a_class_with_copies_of_one_image_or_with_none_that_can_be_read(configuration, class_folders):
    folder = sorted(path for path in class_folders.iterdir() if path.is_dir())[0]
    paths = sorted(folder.glob("*.png"))
    paths[0].write_bytes(b"\x89PNG and no more")
    found = data_finding(configuration)
    assert (found.state, "cannot be" in found.words) == (State.NOTE, True)
    for path in paths[2:]:
        shutil.copy(paths[1], path)
    found = data_finding(configuration)
    assert found.state is State.BAD
    assert f"class {folder.name!r}: of its {len(paths)} images 1 can be read and differ" in found.words
    for path in paths:
        path.write_bytes(b"\x89PNG and no more")
    assert "0 can be read and differ" in data_finding(configuration).words


def test_the_table_and_its_verdict(capsys):
    print_table([good("clock", "it is [late]"), bad("data", "none", "add some")], fit=False)
    printed = capsys.readouterr().out
    for words in ("it is [late]", "add some", "not fit"):
        assert words in printed


def test_an_unusable_bundle_is_bad_input(tmp_path):
    with pytest.raises(BundleError):
        examine(tmp_path, None)


def test_nobody_at_the_brokers_address():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        found = reach(
            LinkSettings(host="127.0.0.1", port=unused.getsockname()[1]), "trial", "site-a", running=False
        )
    assert [finding.state for finding in found] == [State.BAD]
    assert "connection refused" in found[0].words


@pytest.mark.parametrize(
    ("first", "last", "state"),
    [(-10, 100, State.OK), (-10, 10, State.NOTE), (-10, -1, State.BAD), (1, 100, State.BAD)],
)
def test_certificate_dates(tmp_path, first, last, state):
    key, now = Ed25519PrivateKey.generate(), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "broker")])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now + timedelta(days=first))
        .not_valid_after(now + timedelta(days=last))
        .sign(key, None)
    )
    (tmp_path / "ca.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    (found,) = own_certificates(LinkSettings(tls=True, ca_file=str(tmp_path / "ca.pem")))
    assert found.state is state
    assert "CN=broker" in found.words


def test_a_clock_before_files_that_exist_is_wrong(tmp_path):
    path = tmp_path / "manifest.json"
    path.touch()
    assert clock([path, tmp_path / "missing"]).state is not State.BAD
    os.utime(path, (time.time() + 7200, time.time() + 7200))
    found = clock([path])
    assert found.state is State.BAD
    assert "2.0 h later" in found.words


@pytest.mark.parametrize(
    ("machine", "flags", "words"),
    [
        ("x86_64", "flags : sse avx2 avx512_vnni", "quick 8-bit"),
        ("x86_64", "flags : sse avx2", "overflow"),
        ("x86_64", "flags : sse", "without AVX2"),
        ("aarch64", "Features : fp asimd asimddp", "dot product"),
        ("aarch64", "Features : fp asimd", "slowly"),
        ("x86_64", "", "does not say"),
    ],
)
def test_processors(tmp_path, monkeypatch, machine, flags, words):
    monkeypatch.setattr("platform.machine", lambda: machine)
    (tmp_path / "cpuinfo").write_text(flags)
    assert words in processor(tmp_path / "cpuinfo").words


def test_too_little_memory_and_a_folder_that_cannot_be_written(tmp_path):
    table = tmp_path / "meminfo"
    table.write_text("MemTotal: 2000000 kB\nMemAvailable: 150000 kB\n")
    assert memory(100 << 20, training=False, table=table).state is State.BAD
    assert memory(1 << 20, training=False, table=table).state is State.OK
    assert disk(tmp_path / "state").state is not State.BAD
    assert not (tmp_path / "state").exists()


def test_the_feature_store_is_counted_and_not_made(tmp_path):
    path = tmp_path / "features.db"
    assert "none yet" in features(path).words
    assert not path.exists()
    with FeatureStore(path):
        pass
    assert features(path).words.startswith("0 embeddings")
    path.write_text("something else")
    assert features(path).state is State.NOTE


def test_a_split_that_tests_on_look_alikes_of_training_is_named(tmp_path):
    record = tmp_path / "split.csv"
    assert split(record) is None
    images = [
        ContentLabel("a", f"{row}.png", bytes([row]) * 32, f"g{row // 2}", "patient") for row in range(40)
    ]
    split_images(images, record, seed=1)
    assert split(record).state is State.OK
    split_images([replace(image, group="p") for image in images], record, seed=1)
    found = split(record)
    assert found.state is State.NOTE
    assert "8 of 8 test" in found.words
    record.write_text("something else")
    assert split(record).state is State.BAD


def test_a_build_for_graphics_cards_without_one_is_larger_than_need_be(tmp_path):
    torch, devices = tmp_path / "torch", tmp_path / "dev"
    (torch / "lib").mkdir(parents=True)
    devices.mkdir()
    assert training(torch, devices).state is State.OK
    (torch / "lib" / "libtorch_cuda.so").touch()
    found = training(torch, devices)
    assert found.state is State.NOTE
    assert "5 GB" in found.advice
    (devices / "nvidia0").touch()
    assert training(torch, devices).state is State.OK
    assert training(None, devices).state is State.BAD


def test_a_broker_that_lets_in_who_shows_no_certificate(tmp_path, mosquitto_installed):
    root = make_certificate(tmp_path, "root", None)
    server, site = (make_certificate(tmp_path, name, root) for name in ("server", "site"))
    lines = [f"cafile {root.certificate_file}", f"certfile {server.certificate_file}"]
    lines += [f"keyfile {server.key_file}"]
    files = {"certificate_file": site.certificate_file, "key_file": site.key_file}
    for asks, states in ((False, [State.BAD]), (True, [])):
        with MosquittoBroker(listener_settings=[*lines, f"require_certificate {asks}".lower()]) as broker:
            settings = LinkSettings(
                host=broker.host, port=broker.port, tls=True, ca_file=root.certificate_file, **files
            )
            assert [finding.state for finding in asks_for_certificates(settings)] == states


def test_a_secret_that_others_can_read_is_not_fit(tmp_path, monkeypatch):
    key, password = tmp_path / "site.key", tmp_path / "password"
    for path in (key, password):
        path.touch(0o600)
    files = {"site.key": key, "broker.password_file": password, "broker.key_file": None}
    assert secrets(files).state is State.OK
    password.chmod(0o604)
    finding = secrets(files)
    assert finding.state is State.BAD
    assert "broker.password_file" in str(finding)
    assert "chmod 6" in str(finding)
    monkeypatch.setenv("FEDMEDCLIP_ALLOW_READABLE_KEYS", "1")
    assert secrets(files).state is State.NOTE
