"""The page of a real aggregator: it ends with it at once, and what is not safe keeps it from starting."""

import signal
import time
from http.client import HTTPConnection
from urllib.parse import urlsplit

import pytest

from fedmedclip.protocol.link.settings import LinkSettings
from fedmedclip.protocol.pages.settings import ADDRESS_FILE
from fedmedclip.simulation.processes.brokers import MosquittoBroker
from fedmedclip.simulation.processes.commands import start_command
from fedmedclip.simulation.processes.configurations import write_aggregator_configuration
from tests.edge_client.conftest import write_tiny_bundle


@pytest.fixture
def configuration(tmp_path, mosquitto_installed):
    with MosquittoBroker() as broker:
        path = tmp_path / "aggregator" / "aggregator.toml"
        write_aggregator_configuration(
            path, federation="trial", bundle=write_tiny_bundle(tmp_path / "bundle").folder,
            method="fedmedclip", rounds=2, sites=1, seed=3, page=True,
            broker=LinkSettings(host=broker.host, port=broker.port),
        )  # fmt: skip
        yield path


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_an_aggregator_that_is_stopped_lets_those_who_follow_go(configuration, tmp_path, how):
    started = start_command("aggregator", ["aggregator", "--config", str(configuration)], tmp_path / "logs")
    address_file = configuration.parent / ADDRESS_FILE
    until = time.monotonic() + 60.0
    while not address_file.exists() or "connected" not in started.log_file.read_text():
        assert time.monotonic() < until, started.log_file.read_text()
        time.sleep(0.1)
    connection = HTTPConnection(urlsplit(address_file.read_text().strip()).netloc, timeout=20.0)
    connection.request("GET", "/events")
    assert connection.getresponse().readline() == b"event: marks\n"
    began = time.monotonic()
    started.process.send_signal(how)
    assert started.process.wait(20.0) == 130
    assert time.monotonic() - began < 5.0
    assert not address_file.exists()
    assert f"page: http://{connection.host}:{connection.port}/" in started.log_file.read_text()


@pytest.mark.slow
def test_a_page_that_is_open_to_all_is_refused(configuration, tmp_path):
    configuration.write_text(configuration.read_text().replace("[page]", '[page]\nhost = "0.0.0.0"'))
    started = start_command("aggregator", ["aggregator", "--config", str(configuration)], tmp_path / "logs")
    assert started.process.wait(60.0) == 2
    assert "open to other machines, which needs TLS" in started.log_file.read_text()
