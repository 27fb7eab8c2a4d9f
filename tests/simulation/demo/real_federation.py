"""A federation of real processes over a real Mosquitto, as an operator starts them: configurations in a
folder, and the processes started from them.

Only the encoder is a small stand-in (a real ONNX file whose embedding depends on the image), for speed.
"""

import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from fedmedclip.aggregator.store import Store
from fedmedclip.edge_client.learning.floors import NO_FLOORS
from fedmedclip.protocol.heads.head import head_digest
from fedmedclip.protocol.link.settings import LinkSettings
from fedmedclip.simulation.demo.summary import global_heads, newest_version
from fedmedclip.simulation.processes.brokers import MosquittoBroker
from fedmedclip.simulation.processes.commands import Running, all_ended, start_command
from fedmedclip.simulation.processes.configurations import (
    write_aggregator_configuration,
    write_site_configuration,
)
from tests.edge_client.conftest import write_image, write_tiny_bundle

DEADLINE_SECONDS = 90.0


def write_data(folder: Path, sites: Sequence[str]) -> Path:
    """Write images of three classes for each site, and return the folder."""
    for offset, site in enumerate(sites):
        for label, name in enumerate(("glioma", "healthy", "stroke")):
            for number in range(10 + 3 * offset):
                path = folder / site / name / f"{number:02}.png"
                write_image(path, seed=1000 * label + 100 * offset + number)
    return folder


class Federation:
    """See the module. `data` holds a folder of images for each site; `codec` is that of both directions."""

    def __init__(
        self,
        folder: Path,
        broker: MosquittoBroker,
        data: Path,
        *,
        sites: Sequence[str],
        rounds: int,
        codec: str | None = None,
        embedding_size: int = 16,
        approve: str = "automatic",
        settings: Mapping[str, object] | None = None,
    ) -> None:
        self.folder = folder
        self.rounds = rounds
        self.approve = approve
        self.broker = LinkSettings(host=broker.host, port=broker.port)
        self.bundle = write_tiny_bundle(folder / "bundle", embedding_size=embedding_size).folder
        self.processes: dict[str, Running] = {}
        write_aggregator_configuration(
            folder / "aggregator" / "aggregator.toml",
            federation="trial", bundle=self.bundle, method="fedmedclip", rounds=rounds,
            sites=len(sites), seed=3, broker=self.broker, codec=codec,
            training={"keep_optimizer_state": True}, settings=settings,
        )  # fmt: skip
        for site in sites:
            self.configure_site(site, data / site)

    def configure_site(self, name: str, data: Path, folder: str | None = None) -> None:
        write_site_configuration(
            self.folder / (folder or name) / "site.toml",
            federation="trial", site=name, bundle=self.bundle, data=data, seed=3, broker=self.broker,
            floors=NO_FLOORS, approve=self.approve,
        )  # fmt: skip

    def start(self, *names: str, once: bool = True, more: Sequence[str] = ()) -> None:
        for name in names:
            room = "aggregator" if name == "aggregator" else "site"
            configuration = self.folder / name / f"{room}.toml"
            arguments = [room, "--config", str(configuration), *["--once"] * once, *more]
            self.processes[name] = start_command(name, arguments, self.folder / "logs")

    def command(self, *arguments: str) -> int:
        """Run a command to its end; its output is added to the log `command`."""
        done = start_command("command", list(arguments), self.folder / "logs")
        return done.process.wait(DEADLINE_SECONDS)

    def stop(self, name: str) -> None:
        process = self.processes.pop(name).process
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 130

    def wait_until(self, true: Callable[[], bool], what: str, seconds: float = DEADLINE_SECONDS) -> None:
        """Wait until something holds. Raises AssertionError, with `what`, when it does not in time."""
        until = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < until, f"{what}; logs in {self.folder / 'logs'}"
            time.sleep(0.02)

    def wait_for_log(self, name: str, words: str) -> None:
        self.wait_until(lambda: words in self.log_of(name), f"{name} did not say {words!r}")

    def digest_of(self, version: int) -> bytes:
        store = Store(self.folder / "aggregator" / "aggregator.db")
        newest = store.newest_version()
        store.close()
        assert newest.version == version
        return newest.head_digest

    def kill(self, name: str) -> None:
        self.processes[name].process.send_signal(signal.SIGKILL)
        self.processes.pop(name).process.wait()

    def wait_for_version(self, version: int) -> None:
        until = time.monotonic() + DEADLINE_SECONDS
        while newest_version(self.folder / "aggregator") < version:
            assert time.monotonic() < until, f"version {version} did not come; logs in {self.folder / 'logs'}"
            all_ended(list(self.processes.values()))
            time.sleep(0.005)

    def wait_for_end(self, *names: str) -> None:
        until = time.monotonic() + DEADLINE_SECONDS
        while not all_ended([self.processes[name] for name in names or self.processes]):
            assert time.monotonic() < until, f"the federation did not end; logs in {self.folder / 'logs'}"
            time.sleep(0.05)

    def final_digest(self) -> str:
        store = Store(self.folder / "aggregator" / "aggregator.db")
        head = dict(global_heads(store, None))[self.rounds]
        return head_digest(head).hex()

    def log_of(self, name: str) -> str:
        return (self.folder / "logs" / f"{name}.log").read_text()
