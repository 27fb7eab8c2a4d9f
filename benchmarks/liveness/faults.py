"""What goes wrong in a federation of real processes, one thing after the other, and whether its run ends.

    python -m benchmarks.liveness.faults [--only NAME ...]

A real Mosquitto, aggregator and three sites with a small encoder. Each situation holds when the run comes to
its end with the same head everywhere, and what the situation names is so. The last line is one JSON object,
{name: {"held", "seconds"}}; exit code 1 when something did not hold. From the repository's root.
"""

import argparse
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

from fedmedclip.aggregator.store import Store
from fedmedclip.edge_client.site.state import SiteState
from fedmedclip.protocol import topics
from fedmedclip.protocol.envelope import NO_IDENTITY, open_envelope, seal
from fedmedclip.protocol.heads.head import head_digest
from fedmedclip.protocol.heads.shared_heads import shared_head_specification
from fedmedclip.protocol.link.link import Link, Received
from fedmedclip.protocol.messages import HeadRequest, Join, JoinAnswer, Plan
from fedmedclip.protocol.signature import load_or_create_signing_key, new_signing_key
from fedmedclip.simulation.processes.brokers import MosquittoBroker
from fedmedclip.simulation.processes.commands import ProcessFailedError
from tests.edge_client.conftest import write_image
from tests.simulation.demo.real_federation import Federation, write_data

NAME = "trial"
SITES = ("site-a", "site-b", "site-c")
ROUNDS = 30
FLOOD = 20_000
FLOOD_MEGABYTES = 100.0
ANSWER_SECONDS = 5.0
DISK_BYTES = 4 << 20


class Trial(Federation):
    """A federation in trouble, with its broker."""

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

    def flip_bit(self, database: Path, table: str, column: str) -> None:
        """Flip one bit of a value that is stored."""
        with closing(sqlite3.connect(database)) as connection:
            (value,) = connection.execute(f"SELECT {column} FROM {table}").fetchone()
            connection.execute(f"UPDATE {table} SET {column} = ?", (bytes([value[0] ^ 1]) + value[1:],))
            connection.commit()

    def delete(self, name: str, database: str) -> None:
        """Kill a party and delete its database."""
        self.kill(name)
        for file in (self.folder / name).glob(f"{database}*"):
            file.unlink()


def restored_backup(trial: Trial) -> None:
    """The state is lost, and an old copy put back: the sites hold what it lacks."""
    backup, config = str(trial.folder / "backup"), str(trial.config)
    trial.start("aggregator", *SITES, once=False)
    trial.wait_for_version(2)
    assert trial.command("aggregator", "backup", backup, "--config", config) == 0
    trial.wait_for_version(6)
    trial.kill("aggregator")
    assert trial.command("aggregator", "restore", backup, "--config", config) == 0
    trial.start("aggregator")
    trial.wait_for_end("aggregator")
    trial.digest_of(ROUNDS)


def second_run(trial: Trial) -> None:
    """The same federation begins another run, while the sites stay."""
    trial.start("aggregator", *SITES, once=False)
    trial.wait_for_version(ROUNDS)
    first = trial.plan()
    trial.stop("aggregator")
    trial.start("aggregator", more=["--new-run"])
    trial.wait_for_end("aggregator")
    assert trial.plan().number > first.number
    trial.digest_of(ROUNDS)


def lowered_norm(trial: Trial) -> None:
    """The largest norm that counts is lowered in the configuration while updates are under way."""
    trial.start("aggregator", *SITES)
    trial.wait_for_version(1)
    trial.edit(maximum_update_norm=1e-3)
    trial.ends_well(*SITES)
    assert trial.plan().maximum_update_norm == 1e-3


def forged_plan(trial: Trial) -> None:
    """An outsider puts a plan of its own in the place of the retained one; then a site starts."""
    trial.start("aggregator", "site-a", "site-b")
    trial.wait_for_log("site-a", "joined federation")
    stranger, topic, plan = new_signing_key(), topics.plan(NAME), trial.plan()
    forged = Plan(
        plan.identity, stranger.public_key, *(getattr(plan, name) for name in plan.__struct_fields__[2:])
    )
    link = trial.outsider()
    link.publish(topic, seal(forged, topic, stranger, NO_IDENTITY), retain=True)
    trial.wait_for_log("aggregator", "putting it back")
    link.close()
    trial.start("site-c")
    trial.ends_well(*SITES)


def deleted_plan(trial: Trial) -> None:
    """An outsider deletes the retained plan; then a site starts."""
    trial.start("aggregator", "site-a", "site-b")
    trial.wait_for_log("site-a", "joined federation")
    link = trial.outsider()
    link.publish(topics.plan(NAME), b"", retain=True)
    trial.wait_for_log("aggregator", "putting it back")
    link.close()
    trial.start("site-c")
    trial.ends_well(*SITES)


def lost_last_will(trial: Trial) -> None:
    """A site and the broker, with all that it kept, go together: nobody says that the site is away."""
    trial.edit(minimum_sites=2, lease_seconds=15.0)
    trial.start("aggregator", *SITES)
    trial.wait_for_version(2)
    trial.mosquitto.kill()
    trial.kill("site-c")
    forget(trial.mosquitto)
    trial.mosquitto.start()
    trial.ends_well("site-a", "site-b")


def flood(trial: Trial) -> None:
    """A member asks 20,000 times for a whole head; somebody else joins meanwhile."""
    # Nothing more is heard of the newcomer: its lease has to end.
    trial.edit(lease_seconds=15.0)
    trial.start("aggregator", "site-a", "site-b", once=False)
    trial.wait_for_log("aggregator", "site-b joined")
    trial.stop("site-b")
    process = trial.processes["aggregator"].process.pid
    plan, before = trial.plan(), resident_megabytes(process)
    member = load_or_create_signing_key(trial.folder / "site-b" / "site.key")
    topic = topics.up(NAME, "site-b")
    request = seal(HeadRequest(-1), topic, member, plan.identity)
    attacker, honest = trial.outsider(), trial.outsider("honest")
    honest.subscribe(topics.down(NAME, "newcomer"))
    for _ in range(FLOOD):
        attacker.publish(topic, request)
    key, topic = new_signing_key(), topics.up(NAME, "newcomer")
    join = Join(key.public_key, plan.bundle_digest, 10, -1, "", "")
    asked = time.monotonic()
    honest.publish(topic, seal(join, topic, key, plan.identity))
    while time.monotonic() - asked < ANSWER_SECONDS:
        event = honest.next_event(0.1)
        if isinstance(event, Received) and isinstance(
            open_envelope(event.payload, event.topic).message, JoinAnswer
        ):
            break
    else:
        raise AssertionError(f"no answer within {ANSWER_SECONDS} s")
    trial.wait_until(lambda: attacker.unfinished == 0, "the flood does not get through")
    grown = resident_megabytes(process) - before
    assert grown <= FLOOD_MEGABYTES, f"the aggregator grew by {grown:.0f} MB"
    attacker.close()
    honest.close()
    trial.edit(minimum_sites=2)
    trial.start("site-b", "site-c", once=False)
    trial.wait_for_version(ROUNDS)


def one_image(trial: Trial) -> None:
    """A site has one image."""
    shutil.rmtree(trial.folder / "data", ignore_errors=True)
    write_image(trial.folder / "data" / "glioma" / "only.png", seed=1)
    trial.configure_site("site-c", trial.folder / "data")
    trial.edit(minimum_sites=2)
    trial.start("aggregator", *SITES)
    trial.ends_well("site-a", "site-b")
    assert "Traceback" not in trial.log_of("site-c")


def flipped_bit_of_the_aggregator(trial: Trial) -> None:
    """One bit of the stored global head changes."""
    trial.start("aggregator", *SITES)
    trial.wait_for_version(2)
    trial.kill("aggregator")
    trial.flip_bit(trial.folder / "aggregator" / "aggregator.db", "federation", "head")
    trial.start("aggregator")
    trial.ends_well(*SITES)


def flipped_bit_of_a_site(trial: Trial) -> None:
    """One bit of the shared head at a site changes."""
    trial.start("aggregator", *SITES)
    trial.wait_for_version(2)
    trial.kill("site-b")
    trial.flip_bit(trial.folder / "site-b" / "site.db", "site", "shared_head")
    trial.start("site-b")
    trial.ends_well(*SITES)


def deleted_state_of_a_site(trial: Trial) -> None:
    """A site's database is gone; it begins anew with the same key."""
    trial.start("aggregator", *SITES)
    trial.wait_for_version(2)
    trial.delete("site-b", "site.db")
    trial.start("site-b")
    trial.ends_well(*SITES)


def deleted_state_of_the_aggregator(trial: Trial) -> None:
    """The aggregator's database is gone: it says what to do, and another run with the same key works."""
    trial.start("aggregator", *SITES, once=False)
    trial.wait_for_version(2)
    trial.delete("aggregator", "aggregator.db")
    assert trial.command("aggregator", "--config", str(trial.config)) == 2
    assert "--new-run" in trial.log_of("command")
    trial.start("aggregator", more=["--new-run"])
    trial.wait_for_end("aggregator")
    trial.digest_of(ROUNDS)


def broker_that_remembers(trial: Trial) -> None:
    """The broker is killed and comes back with its files."""
    trial.start("aggregator", *SITES)
    trial.wait_for_version(2)
    trial.mosquitto.kill()
    trial.mosquitto.restart()
    trial.ends_well(*SITES)


def broker_that_forgets(trial: Trial) -> None:
    """The broker is killed and comes back without its files."""
    trial.start("aggregator", *SITES)
    trial.wait_for_version(2)
    trial.mosquitto.kill()
    forget(trial.mosquitto)
    trial.mosquitto.start()
    trial.ends_well(*SITES)


def full_disk(trial: Trial) -> None:
    """The disk under the aggregator's state is full; space is made, and it is started again."""
    if os.geteuid() != 0:
        raise AssertionError("a small disk can be mounted by root only")
    disk = trial.folder / "disk"
    disk.mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(disk)], check=True, timeout=10
    )
    try:
        trial.edit(state=str(disk))
        trial.start("aggregator", *SITES)
        trial.wait_until(lambda: (disk / "aggregator.db").exists(), "no state")
        trial.wait_for_log("aggregator", "round 1: aggregated")
        filler = disk / "filler"
        with filler.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(4096))
        process = trial.processes.pop("aggregator").process
        assert process.wait(60) == 2
        assert "the disk is full" in trial.log_of("aggregator")
        filler.unlink()
        trial.start("aggregator")
        trial.wait_for_end()
    finally:
        for running in trial.processes.values():
            running.process.kill()
            running.process.wait()
        subprocess.run(["umount", str(disk)], check=True, timeout=10)


SITUATIONS: list[Callable[[Trial], None]] = [
    restored_backup, second_run, lowered_norm, forged_plan, deleted_plan, lost_last_will, flood, one_image,
    flipped_bit_of_the_aggregator, flipped_bit_of_a_site, deleted_state_of_a_site,
    deleted_state_of_the_aggregator, broker_that_remembers, broker_that_forgets, full_disk,
]  # fmt: skip


def forget(broker: MosquittoBroker) -> None:
    """Delete what a broker that is down has kept."""
    for file in broker.log_file.parent.glob("mosquitto.db*"):
        file.unlink()


def resident_megabytes(process: int) -> float:
    """Return how much memory a process has now."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


def held(situation: Callable[[Trial], None], folder: Path, data: Path) -> tuple[bool, float]:
    """Play a situation; return whether it held, and the seconds that it took."""
    started = time.monotonic()
    with MosquittoBroker() as broker:
        trial = Trial(folder, broker, data)
        try:
            situation(trial)
            problem = ""
        except (AssertionError, ProcessFailedError, subprocess.SubprocessError) as error:
            problem = str(error) or f"{situation.__name__} did not hold"
        finally:
            for running in trial.processes.values():
                running.process.kill()
                running.process.wait()
    seconds = time.monotonic() - started
    print(f"{situation.__name__}: {problem or 'held'} ({seconds:.0f} s)", flush=True)
    return not problem, seconds


def main() -> int:
    """Play the situations and print what held."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [situation.__name__ for situation in SITUATIONS]
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME")
    chosen = parser.parse_args().only
    results: dict[str, dict[str, object]] = {}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        data = write_data(Path(name) / "data", SITES)
        for situation in SITUATIONS:
            if situation.__name__ in chosen:
                well, seconds = held(situation, Path(name) / situation.__name__, data)
                results[situation.__name__] = {"held": well, "seconds": round(seconds, 1)}
    print(json.dumps(results))
    return int(not all(result["held"] for result in results.values()))


if __name__ == "__main__":
    sys.exit(main())
