"""Real processes: a hospital refuses, one approves late, and the run ends with those that consent."""

import json
import subprocess
import sys

import pytest

from fedmedclip.edge_client.site.state import SiteState
from fedmedclip.simulation.processes.brokers import MosquittoBroker
from tests import ROOT
from tests.simulation.demo.real_federation import Federation, write_data

SITES = ("site-a", "site-b", "site-c")


def site_command(federation, command, site, *more):
    """Run a command of a site's operator, and return its exit code and output."""
    words = [
        "-m",
        "fedmedclip",
        "site",
        command,
        "--config",
        str(federation.folder / site / "site.toml"),
        *more,
    ]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False, cwd=ROOT)
    return done.returncode, done.stdout + done.stderr


def trained_rounds(federation, site):
    state = SiteState(federation.folder / site / "site.db")
    try:
        return state.contributions.count()
    finally:
        state.close()


@pytest.mark.slow
def test_one_refuses_one_approves_late_and_the_run_ends(tmp_path, mosquitto_installed):
    data = write_data(tmp_path / "data", SITES)
    with MosquittoBroker() as broker:
        federation = Federation(
            tmp_path, broker, data, sites=SITES, rounds=4, approve="ask", settings={"minimum_sites": 2}
        )
        code, said = site_command(federation, "approve", "site-a")
        assert (code, "nothing is asked" in said) == (2, True)
        federation.start("aggregator", *SITES)
        for site in SITES:
            federation.wait_for_log(site, "awaits your approval")
        code, said = site_command(federation, "plan", "site-a", "--json")
        shown = json.loads(said)
        assert (code, shown["awaits_decision"], shown["rounds"]) == (0, True, 4)
        assert site_command(federation, "approve", "site-a", "--terms", "0" * 64)[0] == 2
        code, said = site_command(federation, "approve", "site-a", "--terms", shown["terms"])
        assert (code, shown["terms"] in said, "never leaves" in said) == (0, True, True)
        code, said = site_command(federation, "refuse", "site-b", "--reason", "no ethics vote")
        assert code == 0
        federation.wait_for_log("aggregator", "site-b (software")
        federation.wait_for_log("aggregator", "refused by this hospital: no ethics vote")
        federation.wait_for_log("aggregator", "sites take part, and a round needs 2")
        federation.wait_for_log("site-a", "joined federation")
        # A site that is not there when it is decided takes the decision up when it is.
        federation.kill("site-c")
        assert site_command(federation, "approve", "site-c")[0] == 0
        federation.start("site-c")
        federation.wait_for_end("aggregator", "site-a", "site-c")
        assert "approved already" in site_command(federation, "approve", "site-a")[1]
        federation.stop("site-b")
    assert [trained_rounds(federation, site) for site in SITES] == [4, 0, 4]
    federation.final_digest()
