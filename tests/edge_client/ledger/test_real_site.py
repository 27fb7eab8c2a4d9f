"""A real site at a real Mosquitto: all that a witness saw of it is in its ledger, whatever killed it."""

import csv
import hashlib
import io
import re
import shutil

import msgspec
import pytest

from fedmedclip.edge_client.ledger.segments import read_entries, segments_in
from fedmedclip.protocol.link.link import Link, Received
from fedmedclip.protocol.link.settings import LinkSettings
from fedmedclip.simulation.processes.brokers import MosquittoBroker
from tests.simulation.demo.real_federation import Federation, write_data

SITES = ("site-a", "site-b")
ROUNDS = 4
PLANTED = "PLANTED-Meier-Hans"


class Witness:
    """A client that hears everything."""

    def __init__(self, broker):
        self.heard = []
        self._link = Link(LinkSettings(host=broker.host, port=broker.port), client_id="witness")
        self._link.subscribe("fmc1/#")
        self._link.start()

    def listen(self, seconds=0.05):
        while (event := self._link.next_event(seconds)) is not None:
            if isinstance(event, Received):
                event.acknowledge()
                self.heard.append((event.topic, event.payload))

    def close(self):
        self.listen(1.0)
        self._link.close()


@pytest.fixture(scope="module")
def trial(tmp_path_factory, mosquitto_installed):
    """A federation whose site-a was killed in its midst, and what a witness heard."""
    folder = tmp_path_factory.mktemp("trial")
    data = write_data(folder / "data", SITES)
    # Names of people in files and folders: nothing that leaves or is recorded may have them.
    shutil.copytree(data / "site-a", folder / PLANTED)
    for image in [*(folder / PLANTED).rglob("*.png")]:
        image.rename(image.with_name(f"{PLANTED}-{image.name}"))
    with MosquittoBroker() as broker:
        federation = Federation(folder, broker, data, sites=SITES, rounds=ROUNDS)
        federation.configure_site("site-a", folder / PLANTED)
        witness = Witness(broker)
        federation.start("aggregator", *SITES)
        federation.wait_for_version(1)
        federation.kill("site-a")
        witness.listen()
        federation.start("site-a")
        federation.wait_for_end()
        witness.close()
    return federation, witness.heard


def ledger_of(federation, site):
    return list(read_entries(federation.folder / site / "ledger"))


def command(federation, *arguments):
    """Run a command of the ledger and return its exit code and what it printed."""
    log = federation.folder / "logs" / "command.log"
    log.unlink(missing_ok=True)
    config = str(federation.folder / "site-a" / "site.toml")
    code = federation.command("ledger", *arguments, "--config", config)
    return code, log.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("site", SITES)
def test_all_that_left_and_came_is_in_the_ledger(trial, site):
    federation, heard = trial
    entries = ledger_of(federation, site)
    own = {f"fmc1/trial/up/{site}", f"fmc1/trial/status/{site}"}
    sent = {(entry.topic, entry.sha256, entry.bytes) for entry in entries if entry.direction == "out"}
    seen = {
        (topic, hashlib.sha256(payload).hexdigest(), len(payload)) for topic, payload in heard if topic in own
    }
    assert seen
    assert seen <= sent
    # Recorded and not seen by the witness: last wills that were not needed, and what a kill cut off.
    assert {entry.kind for entry in entries if (entry.topic, entry.sha256, entry.bytes) in sent - seen} <= {
        "Status", "Update", "Join",
    }  # fmt: skip
    last_word = max(place for place, (topic, _) in enumerate(heard) if topic in own)
    others = {"fmc1/trial/plan", "fmc1/trial/head", "fmc1/trial/blocks", f"fmc1/trial/down/{site}"}
    came = {(entry.topic, entry.sha256) for entry in entries if entry.direction == "in"}
    told = {
        (topic, hashlib.sha256(payload).hexdigest())
        for topic, payload in heard[:last_word]
        if topic in others
    }
    assert told <= came
    assert len([entry for entry in entries if entry.kind == "Update"]) >= ROUNDS


@pytest.mark.slow
def test_commands_say_what_left_and_that_it_is_whole(trial, tmp_path):
    federation, _heard = trial
    code, printed = command(federation, "verify")
    assert code == 0
    assert printed.startswith("whole: ")
    code, printed = command(federation, "replay", "--json")
    assert code == 0
    found = msgspec.json.decode(printed)
    assert {update["outcome"] for update in found["replay"]["updates"]} == {"same"}
    assert len(found["replay"]["updates"]) == ROUNDS
    code, printed = command(federation, "show", "--json", "--last", "0", "--direction", "out")
    assert code == 0
    shown = msgspec.json.decode(printed)
    sent = [entry for entry in ledger_of(federation, "site-a") if entry.direction == "out"]
    assert [entry["number"] for entry in shown["entries"]] == [entry.number for entry in sent]
    assert shown["totals"]["sent"]["bytes"] == sum(entry.bytes for entry in sent)
    code, printed = command(federation, "show", "--kind", "update", "--last", "2")
    assert [code, printed.count("-> Update")] == [0, 2]
    assert command(federation, "export", str(tmp_path / "all.csv"))[0] == 0
    rows = list(csv.DictReader(io.StringIO((tmp_path / "all.csv").read_text())))
    assert [row["sha256"] for row in rows] == [entry.sha256 for entry in ledger_of(federation, "site-a")]
    assert command(federation, "export", str(tmp_path / "all.json"), "--format", "json")[0] == 0
    assert len(msgspec.json.decode((tmp_path / "all.json").read_bytes())) == len(rows)


@pytest.mark.slow
def test_no_name_of_a_person_is_in_ledger_or_report(trial, tmp_path):
    federation, heard = trial
    report = tmp_path / "report.html"
    assert command(federation, "report", str(report))[0] == 0
    page = report.read_text()
    assert "What left site-a" in page
    assert len(re.findall("<h2>Every update</h2>", page)) == 1
    ledger = b"".join(path.read_bytes() for _, path in segments_in(federation.folder / "site-a" / "ledger"))
    for content in (page.encode(), ledger, b"".join(payload for _, payload in heard)):
        for name in (PLANTED, "glioma", "stroke", ".png"):
            assert name.encode() not in content


@pytest.mark.slow
def test_backup_and_restore_keep_the_longer_ledger(trial):
    federation, _ = trial
    config = str(federation.folder / "site-a" / "site.toml")
    ledger = federation.folder / "site-a" / "ledger"
    before = len(ledger_of(federation, "site-a"))
    assert federation.command("site", "backup", str(federation.folder / "copy"), "--config", config) == 0
    assert federation.command("site", "restore", str(federation.folder / "copy"), "--config", config) == 0
    assert len(ledger_of(federation, "site-a")) == before + 1
    shutil.rmtree(ledger)
    code, printed = command(federation, "verify")
    assert code == 2
    assert "missing; the ledger is cut" in printed
    assert federation.command("site", "restore", str(federation.folder / "copy"), "--config", config) == 0
    (*_, restored) = ledger_of(federation, "site-a")
    assert (restored.kind, restored.number) == ("Restored", before + 1)
    assert command(federation, "verify")[0] == 0
