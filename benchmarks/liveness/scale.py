"""What many sites cost the aggregator: seconds and disk of a round, and its peak of memory.

    python -m benchmarks.liveness.scale [--sites 1000] [--rounds 3]

A real aggregator process, its real store and a Mosquitto. The sites are light: they share this process and
one connection, join with keys of their own and send, for each round, an update of a small random change
that was encoded once, signed each time. The last line is one JSON object. From the repository's root.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import TypeVar

import numpy as np

from fedmedclip.aggregator.store import Store
from fedmedclip.protocol import topics
from fedmedclip.protocol.codecs import delta_codec_named
from fedmedclip.protocol.codecs.error_feedback import compress
from fedmedclip.protocol.envelope import open_envelope, seal
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.heads.shared_heads import shared_head_specification
from fedmedclip.protocol.link.link import Link, LinkSettings, Received
from fedmedclip.protocol.messages import Announcement, Join, JoinAnswer, Message, Plan, Update
from fedmedclip.protocol.signature import SigningKey, new_signing_key
from fedmedclip.simulation.processes.brokers import MosquittoBroker
from fedmedclip.simulation.processes.commands import running
from fedmedclip.simulation.processes.configurations import write_aggregator_configuration
from tests.edge_client.conftest import write_tiny_bundle

NAME = "scale"
EMBEDDING_SIZE = 256
METHOD = "fedmedclip"
DEADLINE_SECONDS = 300.0

Expected = TypeVar("Expected", bound=Message)


class Crowd:
    """All the sites, with one connection."""

    def __init__(self, sites: int, broker: LinkSettings) -> None:
        self.keys: dict[str, SigningKey] = {f"site-{index:05}": new_signing_key() for index in range(sites)}
        self.link = Link(broker, client_id="crowd")
        self.link.subscribe(topics.plan(NAME), topics.head(NAME), topics.down(NAME, "+"))
        self.link.start()
        specification = shared_head_specification(METHOD, EMBEDDING_SIZE)
        codec = delta_codec_named("lowrank")
        self._payloads = []
        for seed in range(8):
            draw = np.random.default_rng(seed)
            delta = {
                name: draw.normal(0, 1e-3, array.shape).astype(np.float32)
                for name, array in specification.initial(0).items()
            }
            self._payloads.append(compress(codec, delta, None, b"", specification).encoded)

    def join(self) -> Plan:
        """Wait for the plan, join with every site, and return the plan when all are admitted."""
        plan = self._wait_for(Plan)
        for site, key in self.keys.items():
            self._send(site, Join(key.public_key, plan.bundle_digest, 100, 0, "", ""), plan)
        for _ in self.keys:
            if not self._wait_for(JoinAnswer).accepted:
                raise InvalidInputError("a site was not admitted")
        return plan

    def deliver(self, plan: Plan, round_number: int) -> None:
        """Send every site's update, and wait until the version that it makes is announced."""
        for index, site in enumerate(self.keys):
            self._send(site, Update(round_number, 100, self._payloads[index % len(self._payloads)]), plan)
        while self._wait_for(Announcement).version < round_number:
            pass

    def _send(self, site: str, message: Message, plan: Plan) -> None:
        topic = topics.up(NAME, site)
        self.link.publish(topic, seal(message, topic, self.keys[site], plan.identity))

    def _wait_for(self, kind: type[Expected]) -> Expected:
        until = time.monotonic() + DEADLINE_SECONDS
        while time.monotonic() < until:
            event = self.link.next_event(1.0)
            if isinstance(event, Received):
                event.acknowledge()
                message = open_envelope(event.payload, event.topic).message
                if isinstance(message, kind):
                    return message
        raise InvalidInputError(f"no {kind.__name__} within {DEADLINE_SECONDS:.0f} s")


def measure(sites: int, rounds: int, folder: Path) -> dict[str, float]:
    """Play the rounds and return what they cost."""
    bundle = write_tiny_bundle(folder / "bundle", embedding_size=EMBEDDING_SIZE).folder
    configuration = folder / "aggregator" / "aggregator.toml"
    with MosquittoBroker() as broker:
        settings = LinkSettings(host=broker.host, port=broker.port)
        write_aggregator_configuration(
            configuration, federation=NAME, bundle=bundle, method=METHOD, rounds=rounds, sites=sites, seed=0,
            broker=settings,
        )  # fmt: skip
        command = {"aggregator": ["aggregator", "--config", str(configuration)]}
        with running(command, folder / "logs") as (process,):
            crowd = Crowd(sites, settings)
            plan = crowd.join()
            began = time.monotonic()
            database = configuration.parent / "aggregator.db"
            before, written = _size(database), _written(process.process.pid)
            computed = _processor_seconds(process.process.pid)
            for round_number in range(1, rounds + 1):
                crowd.deliver(plan, round_number)
            seconds = time.monotonic() - began
            peak = _peak_megabytes(process.process.pid)
            written = _written(process.process.pid) - written
            computed = _processor_seconds(process.process.pid) - computed
            crowd.link.close()
    with closing(Store(database)) as store:
        made = store.newest_version().version
    if made != rounds:
        raise InvalidInputError(f"the run ended at version {made}, not {rounds}")
    return {
        "sites": sites,
        "rounds": rounds,
        "seconds_per_round": round(seconds / rounds, 2),
        "aggregator_processor_seconds_per_round": round(computed / rounds, 2),
        "aggregator_peak_mb": round(peak, 1),
        "disk_bytes_per_round": written // rounds,
        "database_growth_bytes": _size(database) - before,
    }


def _size(database: Path) -> int:
    return sum(file.stat().st_size for file in database.parent.glob("aggregator.db*"))


def _peak_megabytes(process: int) -> float:
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def _processor_seconds(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _written(process: int) -> int:
    lines = Path(f"/proc/{process}/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("write_bytes"))


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sites", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        print(json.dumps(measure(arguments.sites, arguments.rounds, Path(name))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
