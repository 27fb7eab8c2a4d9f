"""`fedmedclip aggregator` manages the access of a real Mosquitto, and refuses one that lets in everybody."""

import json
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

from fedmedclip.aggregator.authority.access_rules import WantedAccess
from fedmedclip.protocol.link.link import Disconnected, Received
from fedmedclip.simulation.processes.brokers import MosquittoBroker
from tests import ROOT
from tests.aggregator.authority.secured import FEDERATION, SecuredBroker, published
from tests.edge_client.conftest import write_tiny_bundle
from tests.protocol.link.helpers import open_link, quiet, wait_for

CODE = "import sys; sys.argv = ['fedmedclip', *sys.argv[1:]]; from fedmedclip.command import main; main()"
SECONDS = 20.0


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return write_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny").folder


@pytest.fixture(scope="module")
def broker(tmp_path_factory, mosquitto_installed):
    with SecuredBroker(tmp_path_factory.mktemp("served"), WantedAccess()) as broker:
        yield broker


def write_configuration(path, bundle, broker, sites, identity):
    lines = [
        "[federation]", f'name = "{FEDERATION}"', f'bundle = "{bundle}"', "rounds = 3",
        "broker_access = true",
        "[sites]", *(f'{site} = "{index:064x}"' for index, site in enumerate(sites, start=1)),
        "[broker]", f'host = "{broker.host}"', f"port = {broker.port}",
        *(f"{name} = {json.dumps(value)}" for name, value in identity.items()),
    ]  # fmt: skip
    path.write_text("\n".join(lines) + "\n")


@contextmanager
def aggregator(configuration, *options):
    """Give the running process and the file of its log."""
    log_file = configuration.with_suffix(".log")
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", CODE, "aggregator", "--config", configuration, *options],
            stdout=log, stderr=log, cwd=ROOT,
        )  # fmt: skip
    try:
        yield process, log_file
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(SECONDS)


def until(condition):
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
def test_members_of_the_configuration_come_and_go_without_a_restart(tmp_path, bundle, broker):
    path, identity = tmp_path / "aggregator.toml", broker.identity("aggregator")
    write_configuration(path, bundle, broker, ["hospital-a", "hospital-b"], identity)
    with (
        aggregator(path) as (process, log_file),
        broker.open("hospital-a") as leaving,
        broker.open("hospital-b") as staying,
        broker.open("hospital-c") as coming,
    ):
        for site, name in ((leaving, "hospital-a"), (staying, "hospital-b")):
            until(lambda site=site, name=name: published(site, f"fmc1/{FEDERATION}/up/{name}"))
            site.subscribe(f"fmc1/{FEDERATION}/plan")
            wait_for(site, Received).acknowledge()
        assert not published(coming, f"fmc1/{FEDERATION}/up/hospital-c")
        write_configuration(path, bundle, broker, ["hospital-b", "hospital-c"], identity)
        wait_for(leaving, Disconnected, lambda event: "administrative action" in event.reason)
        assert not published(leaving, f"fmc1/{FEDERATION}/up/hospital-a")
        until(lambda: published(coming, f"fmc1/{FEDERATION}/up/hospital-c"))
        assert quiet(staying, Disconnected, 0.1)
        assert process.poll() is None
    assert "by hand" not in log_file.read_text()


def test_a_broker_that_asks_for_no_certificate_is_refused_unless_told(tmp_path, bundle, broker):
    folder = broker.home / "broker"
    lines = [f"cafile {folder}/ca.pem", f"certfile {folder}/broker.pem", f"keyfile {folder}/broker-key.pem"]
    path = tmp_path / "aggregator.toml"
    with MosquittoBroker(listener_settings=lines) as careless:
        write_configuration(path, bundle, careless, [], broker.identity("aggregator"))
        with aggregator(path) as (process, log_file):
            assert process.wait(SECONDS) == 2
        last = log_file.read_text().splitlines()[-1]
        assert "lets in clients that show no certificate" in last
        assert "--insecure" in last
        with (
            aggregator(path, "--insecure") as (process, _),
            open_link(careless, **broker.identity("aggregator")) as witness,
        ):
            witness.subscribe(f"fmc1/{FEDERATION}/plan")
            wait_for(witness, Received).acknowledge()
