"""What one site really sends and receives over a whole federation, counted at its socket.

    python -m benchmarks.wire.socket_bytes --bundle B --data SITE_FOLDER [--rounds 50] [--codec lowrank]

A real Mosquitto, a real aggregator and two real sites; the first reaches the broker through a proxy that
counts TCP payload bytes: MQTT headers, topics, acknowledgements, pings, announcements, receipts. Both sites
get the same folder of class folders, because only the bytes matter here. From the repository's root.
"""

import argparse
import tempfile
import time
from pathlib import Path

from benchmarks.wire.counting_proxy import CountingProxy
from fedmedclip.edge_client.learning.floors import NO_FLOORS
from fedmedclip.edge_client.site.state import SiteState
from fedmedclip.protocol.bundle.bundle import open_bundle
from fedmedclip.protocol.link.settings import LinkSettings
from fedmedclip.simulation.processes.brokers import MosquittoBroker
from fedmedclip.simulation.processes.commands import running, wait_for_all
from fedmedclip.simulation.processes.configurations import (
    write_aggregator_configuration,
    write_site_configuration,
)


def main() -> None:
    """Run the federation and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--codec")
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as name,
        MosquittoBroker() as broker,
        CountingProxy(broker.port) as proxy,
    ):
        folder = Path(name)
        direct = LinkSettings(host=broker.host, port=broker.port)
        counted = LinkSettings(host="127.0.0.1", port=proxy.port)
        write_aggregator_configuration(
            folder / "aggregator" / "aggregator.toml",
            federation="bytes", bundle=arguments.bundle, method="fedmedclip", rounds=arguments.rounds,
            sites=2, seed=0, broker=direct, codec=arguments.codec,
        )  # fmt: skip
        commands = {
            "aggregator": ["aggregator", "--config", f"{folder / 'aggregator' / 'aggregator.toml'}", "--once"]
        }
        for site, link in {"counted": counted, "other": direct}.items():
            configuration = folder / site / "site.toml"
            write_site_configuration(
                configuration, federation="bytes", site=site, bundle=arguments.bundle, data=arguments.data,
                seed=0, broker=link, floors=NO_FLOORS,
            )  # fmt: skip
            commands[site] = ["site", "--config", str(configuration), "--once"]
        started = time.monotonic()
        with running(commands, folder / "logs") as processes:
            wait_for_all(processes)
        journal = SiteState(folder / "counted" / "site.db").journal()
    payloads = {
        way: sum(entry[f"{way}_bytes"] for entry in journal.values()) for way in ("uplink", "downlink")
    }
    total = proxy.to_target + proxy.from_target
    print(
        f"{arguments.rounds} rounds, D = {open_bundle(arguments.bundle).manifest.embedding_size}, "
        f"codec {arguments.codec or 'default'}, {time.monotonic() - started:.0f} s"
    )
    print(f"at the socket  up {proxy.to_target:,}  down {proxy.from_target:,}  together {total:,}")
    print(f"MQTT payloads  up {payloads['uplink']:,}  down {payloads['downlink']:,}")


if __name__ == "__main__":
    main()
