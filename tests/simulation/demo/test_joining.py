"""From nothing to a member that trains, and to one that is revoked: commands alone, over a real Mosquitto."""

import shutil
import signal
import stat
import time
from pathlib import Path

import pytest

from fedmedclip.simulation.processes.brokers import BrokerProcess, find_mosquitto, free_port
from fedmedclip.simulation.processes.commands import Running, start_command
from tests.edge_client.conftest import write_image, write_tiny_bundle

PATIENCE = 90.0


class Broker(BrokerProcess):
    """The broker of the folder that `federation init` made."""

    name = "broker of a federation"

    def __init__(self, centre: Path, port: int) -> None:
        super().__init__(port)
        self._configuration = centre / "broker" / "mosquitto.conf"

    def command(self, folder: Path) -> list[str]:
        return [find_mosquitto(), "-c", str(self._configuration)]


class Trial:
    """Commands, in a folder of their own, with the log of each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.centre = folder / "centre"
        self.bundle = write_tiny_bundle(folder / "bundle").folder
        self.port = free_port()
        (folder / "passphrase").write_text("correct horse battery staple\n")
        (folder / "passphrase").chmod(0o600)
        self.running: list[Running] = []

    def run(self, *arguments: str) -> str:
        """Run a command to its end and return its log; it has to succeed."""
        started = start_command("command", list(arguments), self.folder / "logs")
        assert started.process.wait(PATIENCE) == 0, started.log_file.read_text()
        return started.log_file.read_text()

    def federation(self, *arguments: str) -> str:
        return self.run("federation", *arguments, "--folder", str(self.centre))

    def start(self, name: str, *arguments: str) -> Running:
        self.running.append(start_command(name, list(arguments), self.folder / "logs"))
        return self.running[-1]

    def join(self, site: str, *more: str) -> Running:
        arguments = [f"{self.folder}/{site}.toml", "--data", f"{self.folder}/images", "--anyway"]
        arguments += ["--bundle", str(self.bundle), "--folder", f"{self.folder}/{site}", *more]
        return self.start(f"join-{site}", "join", *arguments)

    def stop(self) -> None:
        for started in self.running:
            started.process.kill()
            started.process.wait()


def said(started: Running, words: str) -> None:
    """Wait until a command has said something."""
    until = time.monotonic() + PATIENCE
    while words not in started.log_file.read_text():
        assert time.monotonic() < until, f"no {words!r} in: {started.log_file.read_text()}"
        time.sleep(0.05)


@pytest.fixture
def trial(tmp_path):
    for label, name in enumerate(("glioma", "healthy", "stroke")):
        for number in range(36):
            write_image(tmp_path / "images" / name / f"{number:02}.png", seed=1000 * label + number)
    trial = Trial(tmp_path)
    yield trial
    trial.stop()


@pytest.mark.slow
def test_a_hospital_joins_trains_follows_a_new_key_is_revoked_and_comes_back(trial, mosquitto_installed):
    values = {
        "--name": "trial",
        "--broker": f"127.0.0.1:{trial.port}",
        "--bundle": str(trial.bundle),
        "--rounds": "100000",
        "--passphrase-file": f"{trial.folder}/passphrase",
    }
    options = [word for pair in values.items() for word in pair]
    trial.run("federation", "init", str(trial.centre), *options)
    configuration = trial.centre / "aggregator.toml"
    text = configuration.read_text()
    configuration.write_text(text.replace("# minimum_sites = 2", "minimum_sites = 1"))
    for site in ("site-a", "site-b"):
        trial.federation("invite", site, "--output", f"{trial.folder}/{site}.toml")

    with Broker(trial.centre, trial.port):
        # The aggregator is not there yet, so the broker knows nothing of the invitation: the site waits.
        a = trial.join("site-a")
        said(a, "may not have been told of it yet")
        aggregator = trial.start("aggregator", "aggregator", "--config", str(configuration))
        said(aggregator, "site-a asks to join")
        a.process.send_signal(signal.SIGKILL)
        a.process.wait()
        a = trial.join("site-a")
        said(a, "waiting until the coordinator answers")
        trial.federation("approve", "site-a")
        said(a, "awaits your approval")
        trial.run("site", "approve", "--config", f"{trial.folder}/site-a/site.toml")
        said(a, "round 2 of")

        request, answer = f"{trial.folder}/b.request", f"{trial.folder}/b.answer"
        written = trial.join("site-b", "--request", request)
        assert written.process.wait(PATIENCE) == 0
        trial.federation("approve", "site-b", "--request-file", request, "--output", answer)
        b = trial.start(
            "answered", "join", f"{trial.folder}/site-b.toml", "--folder", f"{trial.folder}/site-b",
            "--answer", answer,
        )  # fmt: skip
        said(b, "site-b is a member of trial")
        said(b, "awaits your approval")
        trial.run("site", "approve", "--config", f"{trial.folder}/site-b/site.toml")
        said(b, "trained on")

        trial.federation("rotate-key")
        said(a, "the coordinator has a new key")
        said(b, "the coordinator has a new key")
        connections = a.log_file.read_text().count("connected to the broker")

        trial.federation("revoke", "site-b", "--reason", "the box was stolen")
        assert b.process.wait(PATIENCE) == 2
        assert "was revoked" in b.log_file.read_text()
        said(a, "members of trial: site-a\n")
        assert a.log_file.read_text().count("connected to the broker") == connections

        trial.federation("invite", "site-b", "--output", f"{trial.folder}/site-b.toml")
        again = trial.start(
            "again", "join", f"{trial.folder}/site-b.toml", "--folder", f"{trial.folder}/site-b"
        )
        said(aggregator, "site-b asks to join")
        trial.federation("approve", "site-b")
        said(again, "trained on")

        backup, configuration = trial.folder / "backup", str(trial.folder / "site-a" / "site.toml")
        trial.run("site", "backup", str(backup), "--config", configuration)
        a.process.send_signal(signal.SIGKILL)
        a.process.wait()
        site_state = trial.folder / "site-a" / "site-state"
        kept = {name: (site_state / name).read_bytes() for name in ("split.csv", "groups.key")}
        assert stat.S_IMODE((site_state / "groups.key").stat().st_mode) == 0o600
        shutil.rmtree(site_state)
        site_state.mkdir()
        trial.run("site", "restore", str(backup), "--config", configuration)
        assert kept == {name: (site_state / name).read_bytes() for name in kept}
        restored = trial.start("restored", "site", "--config", configuration)
        said(restored, "trained on")
        # A key that the roster has rotated asks nobody again, nor does a backup that has the approval.
        assert "awaits your approval" not in restored.log_file.read_text()
