"""A site in numbers: from its files, from its process, and as Prometheus reads them."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from fedmedclip.edge_client.images.split import ContentLabel, write_split
from fedmedclip.edge_client.site.numbers import SiteNumbers, numbers_of_process, stored_numbers
from fedmedclip.edge_client.site.prometheus import metrics_text
from fedmedclip.edge_client.site.state import SiteState
from fedmedclip.protocol.link.session import Traffic
from fedmedclip.protocol.state_folder import claim_state_folder
from tests.simulation.federation.loopback import Loopback


def samples(text):
    return {
        (sample.name.removeprefix("fedmedclip_site_"), *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


@pytest.fixture
def configuration(tmp_path):
    """A site that has trained two rounds, and whose process has ended."""
    federation = Loopback(tmp_path / "federation", sites=1, rounds=3)
    while federation.agents["site-0"].version < 2:
        federation.step()
    state = tmp_path / "site-state"
    state.mkdir()
    held: SiteState = federation.states["site-0"]
    held.write_journal(1, {"uplink_bytes": 100, "downlink_bytes": 30, "train_seconds": 1.5})
    held.write_journal(2, {"uplink_bytes": 50, "downlink_bytes": 7, "train_seconds": 2.5,
                           "accuracy": {"shared": 0.75}})  # fmt: skip
    held.copy_to(state / "site.db")
    parts = ["train"] * 20 + ["validation"] * 8 + ["test"] * 7
    recorded = {
        index.to_bytes(32, "big"): (
            ContentLabel("ring", f"planted-{index}.png", index.to_bytes(32, "big")),
            part,
        )
        for index, part in enumerate(parts)
    }
    write_split(state / "split.csv", recorded)
    file = tmp_path / "site.toml"
    file.write_text(
        '[site]\nname = "north"\nfederation = "thorax"\ndata = "images"\nbundle = "bundle"\ninsecure = true\n'
        '[broker]\nhost = "127.0.0.1"\n[policy]\nbytes_per_day = 1000\n'
    )
    return file


def test_its_files_say_where_it_stands(configuration):
    found = stored_numbers(configuration)
    assert (found.site, found.running, found.run, found.version, found.rounds) == ("north", False, 1, 2, 3)
    assert (found.sent_bytes, found.received_bytes, found.training_seconds) == (150, 37, 2.5)
    assert (found.bytes_per_day, found.bytes_in_all, found.accuracy) == (1000, None, {"shared": 0.75})
    assert (found.connected, found.joined, found.active_version) == (None,) * 3
    assert (found.consent, found.contributed_rounds) == ("approved", 2)


def test_splits_of_few_images_are_not_told(configuration):
    found = stored_numbers(configuration)
    assert found.images == {"train": 20, "validation": 8}
    assert found.accuracy
    configuration.write_text(f"{configuration.read_text()}smallest_count = 9\n")
    found = stored_numbers(configuration)
    assert (found.images, found.accuracy) == ({"train": 20}, {})


def test_whether_it_runs_is_told_by_its_folder(configuration):
    with claim_state_folder(configuration.parent / "site-state"):
        assert stored_numbers(configuration).running


@dataclass
class Agent:
    online: bool
    joined: bool
    refused_messages: int = 3


@pytest.mark.parametrize(("online", "joined"), [(True, True), (True, False), (False, True)])
def test_its_process_adds_what_only_it_knows(online, joined):
    stored = SiteNumbers(federation="thorax", site="north", running=False)
    found = numbers_of_process(stored, Agent(online, joined), Traffic(connections=4))
    assert (found.running, found.connected, found.joined) == (True, online, online and joined)
    assert (found.connections, found.refused_messages) == (4, 3)


def test_prometheus_reads_what_is_known_and_nothing_else():
    numbers = SiteNumbers(
        federation="thorax", site="north", running=True, connected=False, joined=False, connections=2,
        version=4, sent_bytes=1000, sent_bytes_today=10, bytes_per_day=500, images={"train": 100},
        consent="asked",
        certificate_ends=1.8e9, privacy_spent=1.5, accuracy={"shared": 0.9}, ledger_entries=12,
    )  # fmt: skip
    found = samples(metrics_text(numbers))
    for name, value in {
        ("up",): 1, ("connected",): 0, ("connections_total",): 2, ("version",): 4,
        ("sent_bytes_total",): 1000, ("sent_bytes_today",): 10, ("limit_bytes_per_day",): 500,
        ("images", "train"): 100,
        ("consent", "asked"): 1, ("consent", "approved"): 0, ("privacy_spent_epsilon",): 1.5,
        ("accuracy", "shared"): 0.9, ("ledger_entries",): 12,
        ("certificate_expiry_timestamp_seconds",): 1.8e9,
    }.items():  # fmt: skip
        assert found[name] == value, name
    assert not {name for name, *_ in found} & {"limit_bytes_in_all", "training_seconds", "paused"}


def test_the_command_prints_them_without_any_name_of_an_image(configuration):
    command = Path(sys.executable).parent / "fedmedclip"
    done = subprocess.run(
        [command, "site", "metrics", "--config", configuration], capture_output=True, text=True, check=True
    )
    assert samples(done.stdout.encode())["version",] == 2
    assert "planted" not in done.stdout
