"""Real processes: the next run begins with a bundle that has one class more, while the sites run."""

import json
import shutil

import pytest

from fedmedclip.edge_client.site.state import SiteState
from fedmedclip.protocol.bundle.bundle import open_bundle
from fedmedclip.simulation.demo.summary import newest_version
from fedmedclip.simulation.processes.brokers import MosquittoBroker
from tests.edge_client.conftest import write_image, write_tiny_bundle
from tests.simulation.demo.real_federation import Federation, write_data

SITES = ("site-a", "site-b", "site-c")
CLASSES = ("glioma", "healthy", "meningioma", "stroke")


def with_bundles_of_their_own(federation):
    """Let each site have a copy of the bundle, as hospitals do."""
    for site in SITES:
        shutil.copytree(federation.bundle, federation.folder / f"bundle-{site}")
        file = federation.folder / site / "site.toml"
        file.write_text(file.read_text().replace(f'"{federation.bundle}"', f'"../bundle-{site}"'))


@pytest.mark.slow
def test_the_next_run_begins_with_a_new_class_and_no_process_is_stopped(tmp_path, mosquitto_installed):
    data = write_data(tmp_path / "data", SITES)
    with MosquittoBroker() as broker:
        federation = Federation(tmp_path, broker, data, sites=SITES, rounds=2)
        with_bundles_of_their_own(federation)
        config = str(tmp_path / "aggregator" / "aggregator.toml")
        federation.start("aggregator", *SITES, once=False)
        federation.wait_for_version(2)
        for site in SITES:
            federation.wait_for_log(site, "federation finished at version 2")
        before = {site: SiteState(tmp_path / site / "site.db").load() for site in SITES}

        # The new class comes to the hospitals' folders, and the bundle to one of them early.
        larger = write_tiny_bundle(tmp_path / "larger", class_names=CLASSES, embedding_size=16)
        for site in SITES:
            for number in range(8):
                write_image(data / site / "meningioma" / f"{number:02}.png", seed=5000 + number)
        shutil.copytree(larger.folder, tmp_path / "bundle-site-c", dirs_exist_ok=True)
        asked = ["control", "next-run", "--from-newest", "--bundle", str(larger.folder), "--rounds", "3"]
        assert federation.command(*asked, "--config", config, "--json") == 0
        answer = json.loads(federation.log_of("command").strip().splitlines()[-1])
        assert answer["done"]
        assert "carried over" in answer["answer"]
        # Given twice it is still one run.
        assert federation.command(*asked, "--config", config) == 0
        assert "nothing else is begun" in federation.log_of("command")

        federation.wait_for_log("site-c", "going on with the bundle of the next run")
        federation.wait_for_log("site-a", "waiting for the bundle")
        shutil.copytree(larger.folder, tmp_path / "bundle-site-a", dirs_exist_ok=True)
        file = tmp_path / "site-b" / "site.toml"
        file.write_text(file.read_text().replace('"../bundle-site-b"', f'"{larger.folder}"'))
        federation.wait_until(
            lambda: newest_version(tmp_path / "aggregator") == 3, "the next run did not end", seconds=150
        )
        for site in SITES:
            federation.wait_for_log(site, "federation finished at version 3")
            assert federation.processes[site].process.poll() is None
            state = SiteState(tmp_path / site / "site.db")
            assert state.load().plan.bundle_digest == open_bundle(larger.folder).digest
            assert len(state.load().private_head) > len(before[site].private_head)
            assert "the private head in the next run" in federation.log_of(site)

        assert federation.command("control", "log", "--verify", "--config", config) == 0
        where = ["--broker", f"{broker.host}:{broker.port}", "--federation", "trial"]
        assert federation.command("status", *where, "--json") == 0
        status = json.loads(federation.log_of("command").strip().splitlines()[-1])
        assert (status["source"], status["version"], status["finished"]) == ("broker", 3, True)
        assert {member["site"]: member["part"] for member in status["members"]} == dict.fromkeys(
            SITES, "here"
        )
        # What was asked for beside the file holds over a restart.
        federation.stop("aggregator")
        federation.start("aggregator", once=True)
        federation.wait_for_end("aggregator")
        for site in SITES:
            federation.stop(site)
