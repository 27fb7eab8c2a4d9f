"""A federation of real processes in trouble: Mosquitto, aggregator, three sites, a small encoder."""

import json
import signal
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from benchmarks.liveness.resources import resident_megabytes
from fedmedclip.aggregator.store import Store
from fedmedclip.edge_client.site.state import SiteState
from fedmedclip.protocol.heads.head import head_digest
from fedmedclip.protocol.heads.shared_heads import shared_head_specification
from fedmedclip.protocol.link.link import Link
from fedmedclip.protocol.messages import Plan
from fedmedclip.simulation.demo.summary import newest_version
from fedmedclip.simulation.processes.brokers import MosquittoBroker
from tests.simulation.demo.real_federation import Federation

NAME = "trial"
SITES = ("site-a", "site-b", "site-c")
ROUNDS = 30


class Trial(Federation):
    """A federation with its broker, and what is done to them."""

    def __init__(self, folder: Path, broker: MosquittoBroker, data: Path) -> None:
        super().__init__(folder, broker, data, sites=SITES, rounds=ROUNDS)
        self.mosquitto = broker
        self.config = folder / "aggregator" / "aggregator.toml"

    def edit(self, **values: object) -> None:
        """Set settings of `[federation]`; those that are there are replaced."""
        lines = self.config.read_text().splitlines()
        kept = [line for line in lines if line.split(" = ")[0] not in values]
        place = kept.index("[federation]") + 1
        kept[place:place] = [f"{name} = {json.dumps(value)}" for name, value in values.items()]
        self.config.write_text("\n".join(kept) + "\n")

    def plan(self) -> Plan:
        """Return the plan of the run."""
        with closing(Store(self.config.parent / "aggregator.db")) as store:
            plan = store.plan()
        assert plan is not None
        return plan

    def outsider(self, name: str = "outsider") -> Link:
        """Return a started link of somebody else."""
        link = Link(self.broker, client_id=name)
        link.start()
        return link

    def survives(self, party: str, damage: Callable[[], None]) -> None:
        """Kill a party in the middle of the run, do the damage, start it again: the run ends well."""
        self.start("aggregator", *SITES)
        self.wait_for_version(2)
        self.kill(party)
        damage()
        self.start(party)
        self.ends_well(*SITES)

    def ends_well(self, *sites: str) -> None:
        """Wait until everybody has ended well, and compare the heads of `sites` with the aggregator's."""
        self.wait_for_end("aggregator", *sites)
        newest = self.digest_of(ROUNDS)
        specification = shared_head_specification("fedmedclip", 16)
        for site in sites:
            with closing(SiteState(self.folder / site / "site.db")) as state:
                stored = state.load()
            assert stored is not None
            assert stored.version == ROUNDS
            assert head_digest(specification.from_bytes(stored.shared_head)) == newest

    def flip_bit(self, database: str, table: str, column: str) -> None:
        """Flip one bit of a value that is stored."""
        with closing(sqlite3.connect(self.folder / database)) as connection:
            (value,) = connection.execute(f"SELECT {column} FROM {table}").fetchone()
            connection.execute(f"UPDATE {table} SET {column} = ?", (bytes([value[0] ^ 1]) + value[1:],))
            connection.commit()

    def delete(self, database: str) -> None:
        """Delete a database with what SQLite keeps beside it."""
        path = self.folder / database
        for file in path.parent.glob(f"{path.name}*"):
            file.unlink()

    def break_broker(self, *, forgets: bool) -> None:
        """Kill the broker, and start it again with or without what it kept."""
        self.mosquitto.kill()
        if forgets:
            self.mosquitto.forget()
            self.mosquitto.start()
        else:
            self.mosquitto.restart()

    def freeze(self, name: str) -> None:
        """Stop a process without ending it: its connection stays for a while, it says nothing."""
        self.processes[name].process.send_signal(signal.SIGSTOP)

    def hangs(self, seconds: float) -> bool:
        """Whether no version is made for so long."""
        before = newest_version(self.config.parent)
        time.sleep(seconds)
        return newest_version(self.config.parent) == before

    def kill_all(self) -> None:
        """Kill what still runs."""
        for running in self.processes.values():
            running.process.kill()
            running.process.wait()

    def resident_megabytes(self, name: str) -> float:
        """Return how much memory a process has now."""
        return resident_megabytes(self.processes[name].process.pid)
