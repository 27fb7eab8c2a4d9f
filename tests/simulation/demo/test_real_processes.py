"""Real processes over a real Mosquitto: what is killed, restored and begun again comes to the same heads."""

import signal
import time
from contextlib import closing
from importlib.metadata import version as version_of
from pathlib import Path

import msgspec
import pytest

from fedmedclip.aggregator.store import Store
from fedmedclip.aggregator.version_metrics import site_metrics, version_figures
from fedmedclip.edge_client.heads.heads import private_head_specification
from fedmedclip.edge_client.heads.heads_file import load_heads
from fedmedclip.edge_client.site.state import SiteState
from fedmedclip.protocol.bundle.bundle import open_bundle
from fedmedclip.simulation.demo.summary import newest_version
from fedmedclip.simulation.processes.brokers import MosquittoBroker
from fedmedclip.simulation.processes.commands import start_command
from fedmedclip.simulation.processes.configurations import (
    write_site_configuration,
)
from tests.simulation.demo.real_federation import DEADLINE_SECONDS, Federation, write_data

ROUNDS = 6
SITES = ("site-a", "site-b", "site-c")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"), SITES)


def federation_in(folder, broker, data):
    return Federation(folder, broker, data, sites=SITES, rounds=ROUNDS)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, data, mosquitto_installed):
    folder = tmp_path_factory.mktemp("undisturbed")
    with MosquittoBroker() as broker:
        federation = federation_in(folder, broker, data)
        federation.start("aggregator", *SITES)
        federation.wait_for_end()
    return federation


@pytest.mark.slow
def test_every_process_ends_well_and_leaves_heads_and_figures(undisturbed):
    for site in SITES:
        assert (undisturbed.folder / site / "heads.safetensors").exists()
        figures = msgspec.json.decode((undisturbed.folder / site / "evaluation.json").read_bytes())
        assert set(figures) == {"zero_shot", "shared", "private", "ensemble"}


@pytest.mark.slow
def test_no_heads_file_holds_what_the_optimiser_remembers(undisturbed):
    bundle = open_bundle(undisturbed.bundle)
    specification = private_head_specification("fedmedclip", bundle.manifest.embedding_size, 3)
    for site in SITES:
        heads = load_heads(undisturbed.folder / site / "heads.safetensors", bundle)
        assert {tensor.name for tensor in specification.tensors} == set(heads.private)
        stored = SiteState(undisturbed.folder / site / "site.db").load().private_head
        assert len(stored) > 3 * 4 * specification.size


def test_no_round_runs_the_encoder(undisturbed):
    for site in SITES:
        journal = SiteState(undisturbed.folder / site / "site.db").journal()
        assert sorted(journal) == list(range(ROUNDS + 1))
        assert [entry["encoder_images"] for entry in journal.values()] == [0] * (ROUNDS + 1)
        assert all(0 < journal[version]["residual_share"] < 1 for version in range(1, ROUNDS + 1))
        assert all(entry["uplink_bytes"] > 0 for version, entry in journal.items() if version)


def test_the_centre_has_heard_how_good_each_version_is_at_each_site(undisturbed):
    with closing(Store(undisturbed.folder / "aggregator" / "aggregator.db")) as store:
        found = version_figures(store)
        newest = site_metrics(store)
    assert [(figures.version, figures.sharing) for figures in found] == [
        (version, len(SITES)) for version in range(ROUNDS + 1)
    ]
    assert newest.keys() == set(SITES)
    for metrics in newest.values():
        assert metrics.version == ROUNDS
        assert metrics.verdict in ("activated", "set aside")
        assert metrics.train_images >= 8
        assert metrics.software == version_of("fedmedclip-edge")


@pytest.mark.slow
def test_killed_parties_and_a_killed_broker_change_no_bit_of_the_result(tmp_path, data, undisturbed):
    with MosquittoBroker() as broker:
        federation = federation_in(tmp_path, broker, data)
        federation.start("aggregator", *SITES)
        federation.wait_for_version(1)
        federation.kill("site-b")
        federation.start("site-b")
        federation.wait_for_version(2)
        federation.kill("aggregator")
        federation.start("aggregator")
        federation.wait_for_version(3)
        broker.kill()
        federation.kill("site-c")
        broker.restart()
        federation.start("site-c")
        federation.wait_for_end()
    assert federation.final_digest() == undisturbed.final_digest()


@pytest.mark.slow
def test_a_second_site_of_the_same_name_is_told_so_and_disturbs_nobody(tmp_path, data, mosquitto_installed):
    with MosquittoBroker() as broker:
        federation = federation_in(tmp_path, broker, data)
        federation.configure_site("site-a", data / "site-b", folder="impostor")
        federation.start("aggregator", "site-a")
        federation.wait_for_log("site-a", "joined federation")
        federation.start("impostor")
        federation.wait_for_log("impostor", "belongs to another site")
        for running in federation.processes.values():
            assert running.process.poll() is None
        for running in federation.processes.values():
            running.process.send_signal(signal.SIGTERM)
            assert running.process.wait(30) == 130
        assert "start again to go on" in federation.log_of("site-a")


@pytest.mark.slow
def test_backup_restore_control_and_the_next_run_with_running_processes(tmp_path, data, mosquitto_installed):
    with MosquittoBroker() as broker:
        federation = federation_in(tmp_path, broker, data)
        config = str(tmp_path / "aggregator" / "aggregator.toml")
        # Of three sites that are needed two are there: the backup is of version 0, however quick the rest is.
        federation.start("aggregator", "site-a", "site-b", once=False)
        federation.wait_for_log("site-b", "joined federation")
        assert federation.command("aggregator", "backup", str(tmp_path / "backup"), "--config", config) == 0
        federation.start("site-c", once=False)
        federation.wait_for_version(ROUNDS)
        # Its state is lost, and an old copy of it put back: the sites hold what it lacks.
        newest = federation.digest_of(ROUNDS)
        federation.kill("aggregator")
        assert federation.command("aggregator", "restore", str(tmp_path / "backup"), "--config", config) == 0
        assert newest_version(tmp_path / "aggregator") < ROUNDS
        federation.start("aggregator", once=False)
        federation.wait_for_version(ROUNDS)
        assert federation.digest_of(ROUNDS) == newest
        assert federation.command("control", "add-rounds", "1", "--config", config) == 0
        federation.wait_for_version(ROUNDS + 1)
        assert federation.command("control", "rollback", "99", "--config", config) == 2
        assert "version 99 is not here" in federation.log_of("command")
        assert federation.command("control", "rollback", str(ROUNDS), "--config", config) == 0
        federation.wait_for_version(ROUNDS + 2)
        assert federation.digest_of(ROUNDS + 2) == newest
        for site in SITES:
            federation.wait_for_log(site, f"version {ROUNDS + 2}: accuracy")
        # The next run, with another method: the sites follow by themselves.
        federation.stop("aggregator")
        text = Path(config).read_text()
        Path(config).write_text(text.replace('method = "fedmedclip"', 'method = "facmic"'))
        assert federation.command("aggregator", "--config", config, "--once") == 2
        assert "--new-run" in federation.log_of("command")
        federation.start("aggregator", once=True, more=["--new-run"])
        federation.wait_for_end("aggregator")
        for site in SITES:
            assert federation.processes[site].process.poll() is None
            federation.stop(site)
            state = SiteState(tmp_path / site / "site.db")
            assert [plan.method for plan, _ in state.ended_runs()] == ["fedmedclip"]
            assert (state.load().plan.method, state.load().version) == ("facmic", ROUNDS)


def test_an_aggregator_without_its_database_says_what_to_do(tmp_path, data, undisturbed):
    config = tmp_path / "aggregator.toml"
    text = (undisturbed.folder / "aggregator" / "aggregator.toml").read_text()
    config.write_text(text)
    (tmp_path / "aggregator.key").write_bytes(
        (undisturbed.folder / "aggregator" / "aggregator.key").read_bytes()
    )
    done = start_command("lost", ["aggregator", "--config", str(config)], tmp_path / "logs")
    assert done.process.wait(DEADLINE_SECONDS) == 2
    assert "its state was lost; restore a backup" in done.log_file.read_text()
    assert not (tmp_path / "aggregator.db").exists()


def test_without_a_broker_a_site_waits_says_so_and_stops_cleanly(tmp_path, data, mosquitto_installed):
    with MosquittoBroker() as broker:
        federation = federation_in(tmp_path, broker, data)
    federation.start("site-a")
    process = federation.processes["site-a"].process
    until = time.monotonic() + DEADLINE_SECONDS
    while "trying again" not in federation.log_of("site-a"):
        assert time.monotonic() < until
        time.sleep(0.05)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
    assert "Traceback" not in federation.log_of("site-a")


@pytest.mark.slow
def test_a_state_folder_serves_one_process(tmp_path, data, undisturbed):
    broker = undisturbed.broker
    write_site_configuration(
        tmp_path / "site.toml",
        federation="trial",
        site="x",
        bundle=undisturbed.bundle,
        data=data / "site-a",
        seed=1,
        broker=broker,
    )
    first = start_command("first", ["site", "--config", str(tmp_path / "site.toml")], tmp_path / "logs")
    try:
        until = time.monotonic() + DEADLINE_SECONDS
        while not (tmp_path / "site.db").exists():
            assert time.monotonic() < until
            time.sleep(0.05)
        second = start_command("second", ["site", "--config", str(tmp_path / "site.toml")], tmp_path / "logs")
        assert second.process.wait(DEADLINE_SECONDS) == 2
        assert "another process is using the state folder" in second.log_file.read_text()
    finally:
        first.process.kill()
        first.process.wait()
