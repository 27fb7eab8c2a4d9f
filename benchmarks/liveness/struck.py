"""A federation of real processes that can be struck: how its parties go and come, and what it does now."""

import os
import signal
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from datetime import datetime
from pathlib import Path

from benchmarks.liveness.forking import ForkedCommand, ForkServer
from fedmedclip.simulation.demo.summary import newest_version
from fedmedclip.simulation.processes.brokers import MosquittoBroker
from tests.simulation.demo.real_federation import Federation

SITES = ("site-a", "site-b", "site-c")
BROKER = "broker"


class StruckFederation(Federation):
    """Aggregator, broker and three sites; `setup` is the codec of both directions and the embedding size.

    `slow` is for whoever plays: a recovery took long.
    """

    parties = ("aggregator", *SITES, BROKER)

    def __init__(
        self,
        folder: Path,
        broker: MosquittoBroker,
        data: Path,
        server: ForkServer,
        *,
        rounds: int,
        setup: tuple[str, int],
    ) -> None:
        codec, size = setup
        super().__init__(folder, broker, data, sites=SITES, rounds=rounds, codec=codec, embedding_size=size)
        self._mosquitto = broker
        self._server = server
        self._running: dict[str, ForkedCommand] = {}
        self.slow = False

    def start(self, *names: str, once: bool = False, more: Sequence[str] = ()) -> None:
        """Start parties from a process that has imported everything."""
        for name in names:
            room = "aggregator" if name == "aggregator" else "site"
            arguments = [
                room,
                "--config",
                str(self.folder / name / f"{room}.toml"),
                *["--once"] * once,
                *more,
            ]
            self._running[name] = self._server.start(arguments, self.folder / "logs" / f"{name}.log")

    def kill(self, *names: str) -> None:
        """Kill parties together."""
        for name in names:
            self._mosquitto.kill() if name == BROKER else self._running.pop(name).kill()

    def start_again(self, names: Sequence[str], *, forgetful: bool) -> None:
        """Start parties in this order; a forgetful broker has lost its files."""
        for name in names:
            if name != BROKER:
                self.start(name)
                continue
            if forgetful:
                self._mosquitto.forget()
            self._mosquitto.start()

    def note(self, what: str) -> None:
        """Add what happened to a log of its own, to be read beside those of the parties."""
        with (self.folder / "logs" / "blows.log").open("a") as log:
            print(f"{datetime.now():%Y-%m-%d %H:%M:%S.%f} {what}", file=log)

    def freeze(self, names: Sequence[str]) -> None:
        """Let parties do nothing until `thaw`."""
        self._signal(names, signal.SIGSTOP)

    def thaw(self, names: Sequence[str]) -> None:
        """Let parties go on."""
        self._signal(names, signal.SIGCONT)

    def _signal(self, names: Sequence[str], number: signal.Signals) -> None:
        for name in names:
            broker = name == BROKER
            os.kill(self._mosquitto.process_identifier if broker else self._running[name].pid, number)

    def kill_all(self) -> None:
        """End what still runs, except the broker."""
        self.kill(*self._running)

    def require_alive(self) -> None:
        """Raise AssertionError when a party has ended that nobody killed."""
        for name, command in self._running.items():
            assert not command.ended, f"{name} ended: {command.last_line()} (log: {command.log_file})"

    def version(self) -> int:
        """Return the aggregator's newest version, 0 before there is any."""
        return newest_version(self.folder / "aggregator")

    def is_past(self, version: int) -> bool:
        """Whether there is a version after this one, or all rounds are done."""
        return self.version() > min(version, self.rounds - 1)

    def everybody_holds(self) -> bool:
        """Whether the last version is at every site."""
        return self.version() >= self.rounds and min(map(self._held, SITES)) >= self.rounds

    def phase(self) -> str:
        """Return what the federation is doing, as the aggregator's log has it."""
        lines = self._log_lines()
        if sum("joined with" in line for line in lines) < len(SITES):
            return "joining"
        version = self.version()
        if version >= self.rounds:
            return "idle"
        last = next((line for line in reversed(lines) if "round " in line), "")
        if "delivered" not in last:
            # Right after it was made a version is still on its way.
            return "announcing" if min(map(self._held, SITES)) < version else "training"
        number = last.split("round ")[1].split(":")[0]
        delivered = sum(f"round {number}:" in line and "delivered" in line for line in lines)
        return "aggregating" if delivered >= len(SITES) else "delivering"

    def _log_lines(self) -> list[str]:
        log = self.folder / "logs" / "aggregator.log"
        return log.read_text(errors="replace").splitlines() if log.exists() else []

    def _held(self, site: str) -> int:
        """Return the version that a site holds, -1 for none. Reading does not disturb it."""
        try:
            with closing(
                sqlite3.connect(f"file:{self.folder / site / 'site.db'}?mode=ro", uri=True)
            ) as state:
                row = state.execute("SELECT version FROM site").fetchone()
        except sqlite3.OperationalError:
            return -1
        return -1 if row is None else int(row[0])
