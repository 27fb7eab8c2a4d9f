"""How much of what passes a site's wire is heads: encoded updates and versions over all IP bytes.

    sudo python -m benchmarks.wire.goodput --bundle B --data SITE_FOLDER [--rounds 30] [--codec lowrank]

A real Mosquitto, aggregator and second site on one host, the counted site on another (`two_hosts`): TCP and
IP headers, MQTT, acknowledgements, pings, receipts and status all count. From the repository's root.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.wire.two_hosts import AT_HOSPITAL, CENTRE_ADDRESS, two_hosts, wire
from fedmedclip.protocol.link.settings import LinkSettings
from fedmedclip.simulation.processes.brokers import MosquittoBroker, free_port
from fedmedclip.simulation.processes.configurations import (
    write_aggregator_configuration,
    write_site_configuration,
)

# IPv4 and TCP with timestamps.
HEADER_BYTES = 52
_COMMAND = [sys.executable, "-m", "fedmedclip"]


def main() -> None:
    """Make the hosts, and measure on them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--codec")
    parser.add_argument("--at-centre", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.at_centre:
        with tempfile.TemporaryDirectory() as folder:
            measure(Path(folder), arguments.bundle, arguments.data, arguments.rounds, arguments.codec)
    else:
        with two_hosts() as enter:
            again = [sys.executable, "-m", "benchmarks.wire.goodput", *sys.argv[1:], "--at-centre"]
            subprocess.run([*enter, *again], check=True)


def measure(folder: Path, bundle: Path, data: Path, rounds: int, codec: str | None) -> None:
    """Run a federation and print what passed the wire, from the second round to the last."""
    port = free_port()
    with MosquittoBroker(settings=[f"listener {port} {CENTRE_ADDRESS}"]) as broker:
        near = LinkSettings(host=broker.host, port=broker.port)
        far = LinkSettings(host=CENTRE_ADDRESS, port=port)
        write_aggregator_configuration(
            folder / "aggregator.toml", federation="brain-mri", bundle=bundle, method="fedmedclip",
            rounds=rounds, sites=2, seed=0, broker=near, codec=codec,
        )  # fmt: skip
        for site, link in (("hospital-a", far), ("hospital-b", near)):
            write_site_configuration(
                folder / site / "site.toml", federation="brain-mri", site=site, bundle=bundle, data=data,
                seed=0, broker=link,
            )  # fmt: skip
        commands = [
            [*_COMMAND, "aggregator", "--config", str(folder / "aggregator.toml"), "--once"],
            [*AT_HOSPITAL, *_COMMAND, "site", "--config", str(folder / "hospital-a" / "site.toml"), "--once"],
            [*_COMMAND, "site", "--config", str(folder / "hospital-b" / "site.toml"), "--once"],
        ]
        log = folder / "aggregator.log"
        with log.open("wb") as output:
            processes = [
                subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=output if number == 0 else None)
                for number, command in enumerate(commands)
            ]
            while "round 1: aggregated" not in log.read_text():
                time.sleep(0.02)
            before = wire()
            while f"round {rounds}: aggregated" not in log.read_text():
                time.sleep(0.02)
            after = wire()
            for process in processes:
                process.wait(60)
    passed = {name: after[name] - before[name] for name in after}
    up = sum(int(size) for size in re.findall(r"hospital-a delivered (\d+) bytes", log.read_text())[1:])
    down = downlink_bytes(folder)
    total = passed["up_bytes"] + passed["down_bytes"]
    counted = rounds - 1
    print(
        f"{counted} rounds, per round: update {up / counted:,.0f}, version {down / counted:,.0f}; "
        f"up {passed['up_bytes'] / counted:,.0f} in {passed['up_packets'] / counted:.1f} packets, "
        f"down {passed['down_bytes'] / counted:,.0f} in {passed['down_packets'] / counted:.1f}"
    )
    headers = HEADER_BYTES * (passed["up_packets"] + passed["down_packets"])
    print(
        f"goodput up {up / passed['up_bytes']:.3f}, down {down / passed['down_bytes']:.3f}, "
        f"together {(up + down) / total:.3f}; of what is inside TCP {(up + down) / (total - headers):.3f}"
    )


def downlink_bytes(folder: Path) -> int:
    """Return the bytes of the encoded versions that were announced after the first."""
    from fedmedclip.aggregator.store import Store

    store = Store(folder / "aggregator.db")
    try:
        return sum(len(stored.payload) for stored in store.versions_after(1))
    finally:
        store.close()


if __name__ == "__main__":
    main()
