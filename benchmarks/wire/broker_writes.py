"""What Mosquitto writes and computes for 600 messages of 250 kB to a party that is away.

    python -m benchmarks.wire.broker_writes CONFIGURATION...

Each CONFIGURATION is a mosquitto.conf, of which the lines about listeners and places are left out. The party
comes back after the last message and takes them all. Linux: bytes and processor time are the kernel's, of the
broker's process. From the repository's root.
"""

import argparse
import os
import time
from pathlib import Path

from fedmedclip.protocol.link.link import Link, LinkSettings, Received
from fedmedclip.simulation.processes.brokers import MosquittoBroker

MESSAGES, MESSAGE_BYTES = 600, 250_000
TOPIC = "fmc1/trial/up/site"
_HERE_ALONE = {"listener", "protocol", "cafile", "certfile", "keyfile", "require_certificate"}
_HERE_ALONE |= {"use_identity_as_username", "allow_anonymous", "password_file", "acl_file"}
_HERE_ALONE |= {"persistence_location", "persistence_file"}


def settings_of(configuration: Path) -> list[str]:
    """Return the lines of a mosquitto.conf that are about how it works, not where."""
    lines = [line.strip() for line in configuration.read_text().splitlines()]
    return [line for line in lines if line and line[0] != "#" and line.split()[0] not in _HERE_ALONE]


def written_bytes(process: int) -> int:
    """Return the bytes that a process has had written to disk."""
    lines = Path(f"/proc/{process}/io").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("write_bytes")))


def processor_seconds(process: int) -> float:
    """Return the processor time of a process, its own and the kernel's for it."""
    fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(configuration: Path) -> str:
    """Run once and say what it cost."""
    with MosquittoBroker(settings=settings_of(configuration)) as broker:
        settings = LinkSettings(host=broker.host, port=broker.port, maximum_message_bytes=MESSAGE_BYTES)
        away = Link(settings, client_id="away")
        away.subscribe(TOPIC)
        with away:
            away.publish(TOPIC, b"subscribed")
            while not isinstance(event := away.next_event(1.0), Received):
                continue
            event.acknowledge()
        started = time.monotonic()
        with Link(settings, client_id="site") as site:
            for _ in range(MESSAGES):
                site.publish(TOPIC, os.urandom(MESSAGE_BYTES))
            while site.unfinished:
                site.next_event(0.1)
        taken = time.monotonic() - started
        received = 0
        with Link(settings, client_id="away") as back:
            while (event := back.next_event(5.0)) is not None:
                if isinstance(event, Received):
                    received += 1
                    event.acknowledge()
        process = broker.process_identifier
        return (
            f"{configuration}: {written_bytes(process) / 1e9:.2f} GB written, "
            f"{processor_seconds(process):.2f} s of processor, taken over in {taken:.1f} s, "
            f"{received} arrived"
        )


def main() -> None:
    """Measure each configuration in turn."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("configurations", type=Path, nargs="+", metavar="CONFIGURATION")
    for configuration in parser.parse_args().configurations:
        print(measure(configuration), flush=True)


if __name__ == "__main__":
    main()
