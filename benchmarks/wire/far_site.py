"""A federation of two sites of which one is at the other end of a wire: real processes, a real Mosquitto.

with FarSite(bundle, data, rounds=30) as federation:      # in a script at the centre (`two_hosts`)
    federation.wait_for_round(1)
"""

import re
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks.wire.packets import Recorder
from benchmarks.wire.two_hosts import AT_HOSPITAL, CENTRE_ADDRESS
from benchmarks.wire.wire import Conditions, Passed, Wire
from fedmedclip.edge_client.learning.floors import NO_FLOORS
from fedmedclip.protocol.link.settings import LinkSettings
from fedmedclip.simulation.processes.brokers import MosquittoBroker, free_port
from fedmedclip.simulation.processes.configurations import (
    write_aggregator_configuration,
    write_site_configuration,
)

FAR, NEAR = "hospital-a", "hospital-b"
_FEDERATION = "brain-mri"
_COMMAND = [sys.executable, "-m", "fedmedclip"]
_LOOK_SECONDS = 0.02


class TooLateError(Exception):
    """Something did not happen in the time that it had."""


class FarSite:
    """Runs while the context lasts. `wire`, `recorder` and `broker` are for whoever measures or disturbs.

    Both sites get `data`, the same folder of class folders: only the bytes and the times matter here.
    """

    def __init__(
        self,
        bundle: Path,
        data: Path,
        rounds: int,
        codec: str | None = None,
        conditions: Conditions | None = None,
    ) -> None:
        self._bundle, self._data, self._codec = bundle, data, codec
        self.rounds = rounds
        self.recorder = Recorder()
        self.wire = Wire(self.recorder, conditions)
        self._port = free_port()
        self.broker = MosquittoBroker(settings=[f"listener {self._port} {CENTRE_ADDRESS}"])
        self._processes: list[subprocess.Popen[bytes]] = []
        self._before = Passed()
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            stack.enter_context(self.wire)
            stack.enter_context(self.broker)
            stack.callback(self._end)
            self._start()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def log(self, party: str) -> str:
        """Return what the aggregator or a site has logged so far."""
        return self._log_file(party).read_text()

    def wait_for_round(self, number: int, seconds: float = 600.0) -> None:
        """Wait until the aggregator has closed a round. Raises TooLateError."""
        self.wait_for("aggregator", f"round {number}: aggregated", seconds=seconds)

    def wait_for(self, party: str, words: str, after: int = 0, seconds: float = 600.0) -> None:
        """Wait for words in a log, after its first characters. Raises TooLateError."""
        until = time.monotonic() + seconds
        while words not in self.log(party)[after:]:
            if time.monotonic() > until:
                raise TooLateError(f"{party} has not logged {words!r} within {seconds:.0f} s")
            time.sleep(_LOOK_SECONDS)

    def closed_rounds(self) -> int:
        """Return how many rounds the aggregator has closed."""
        return len(re.findall(r"round \d+: aggregated", self.log("aggregator")))

    def begin_counting(self) -> None:
        """Count from now on."""
        self._before = self.wire.passed()
        self.recorder.clear()

    def counted(self) -> tuple[Passed, Recorder]:
        """Return what passed since then."""
        return self.wire.passed().since(self._before), self.recorder.copy()

    def finish(self, seconds: float = 120.0) -> None:
        """Wait for all processes to end. Raises TooLateError."""
        for process in self._processes:
            try:
                process.wait(seconds)
            except subprocess.TimeoutExpired:
                raise TooLateError(f"the processes have not ended {seconds:.0f} s after the run") from None

    def _start(self) -> None:
        near = LinkSettings(host=self.broker.host, port=self.broker.port)
        far = LinkSettings(host=CENTRE_ADDRESS, port=self._port)
        aggregator = self._folder / "aggregator.toml"
        write_aggregator_configuration(
            aggregator, federation=_FEDERATION, bundle=self._bundle, method="fedmedclip", rounds=self.rounds,
            sites=2, seed=0, broker=near, codec=self._codec,
        )  # fmt: skip
        commands = {"aggregator": [*_COMMAND, "aggregator", "--config", str(aggregator), "--once"]}
        for site, link, at in ((FAR, far, AT_HOSPITAL), (NEAR, near, [])):
            configuration = self._folder / site / "site.toml"
            write_site_configuration(
                configuration, federation=_FEDERATION, site=site, bundle=self._bundle, data=self._data,
                seed=0, broker=link, floors=NO_FLOORS,
            )  # fmt: skip
            commands[site] = [*at, *_COMMAND, "site", "--config", str(configuration), "--once"]
        for party, command in commands.items():
            with self._log_file(party).open("wb") as log:
                self._processes.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log))

    def _log_file(self, party: str) -> Path:
        return self._folder / f"{party}.log"

    def _end(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
