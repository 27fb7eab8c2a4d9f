"""Real processes over a real Mosquitto that sum their updates under masks; one is killed in the midst."""

import pytest

from fedmedclip.simulation.processes.brokers import MosquittoBroker
from tests.simulation.demo.real_federation import Federation, write_data

SITES = ("site-a", "site-b", "site-c", "site-d")


@pytest.mark.slow
def test_a_site_that_is_killed_in_a_round_stops_no_sum_and_comes_back(tmp_path, mosquitto_installed):
    data = write_data(tmp_path / "data", SITES)
    with MosquittoBroker() as broker:
        federation = Federation(tmp_path, broker, data, sites=SITES, rounds=4)
        configuration = tmp_path / "aggregator" / "aggregator.toml"
        text = configuration.read_text().replace("minimum_sites = 4", "minimum_sites = 3")
        assert "minimum_sites = 3" in text
        configuration.write_text(text + "\n[secure_aggregation]\nphase_seconds = 10\n")
        federation.start("aggregator", *SITES)
        federation.wait_for_log("aggregator", "round 1: summing the updates of")
        federation.kill("site-d")
        federation.wait_for_version(2)
        federation.start("site-d")
        federation.wait_for_end()
    said = federation.log_of("aggregator")
    assert "round 4: aggregated the sum of" in said
    assert "Traceback" not in said
    assert all("Traceback" not in federation.log_of(site) for site in SITES)
    assert "there is no roster here" in federation.log_of("site-a")
