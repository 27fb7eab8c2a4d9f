"""How soon a link notices that nothing passes any more, and how soon it is back when something does.

    sudo python -m benchmarks.wire.coming_back [--outage 150] [--uploading]

A real Mosquitto on one host, a link with default settings on another (`wire`), with a black hole on the wire
between them; then a broker that is stopped and started. With `--uploading` a message of 128 KiB goes
into the hole. Noticed within 40 s, back within 5 s of the wire or the broker. From the repository's root.
"""

import argparse
import subprocess
import sys
import time

from benchmarks.wire.two_hosts import AT_HOSPITAL, CENTRE_ADDRESS, two_hosts
from benchmarks.wire.wire import Conditions, Wire
from fedmedclip.simulation.processes.brokers import MosquittoBroker, free_port

# The hospital's part prints a line for each event, and publishes when told to.
_LISTENER = """
import sys, threading
from fedmedclip.protocol.link.link import Connected, Disconnected, Link, LinkSettings, Published
link = Link(LinkSettings(host=sys.argv[1], port=int(sys.argv[2])), client_id="site")
def publish():
    for line in sys.stdin:
        link.publish("a", bytes(int(line)))
with link:
    threading.Thread(target=publish, daemon=True).start()
    while True:
        event = link.next_event(1.0)
        if event is not None:
            print(type(event).__name__, flush=True)
"""


class Watch:
    """The link at the hospital."""

    def __init__(self, port: int) -> None:
        command = [*AT_HOSPITAL, sys.executable, "-c", _LISTENER, CENTRE_ADDRESS, str(port)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def publish(self, size: int) -> None:
        """Let it publish so many bytes."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{size}\n")
        self._process.stdin.flush()

    def seconds_until(self, name: str) -> float:
        """Wait for an event."""
        assert self._process.stdout is not None
        started = time.monotonic()
        while (line := self._process.stdout.readline().strip()) != name:
            if not line:
                raise SystemExit("the link ended")
        return time.monotonic() - started

    def end(self) -> None:
        """Stop it."""
        self._process.kill()
        self._process.wait()


def main() -> None:
    """Make the hosts, and measure on them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--outage", type=float, default=150.0, help="seconds")
    parser.add_argument("--uploading", action="store_true")
    parser.add_argument("--at-centre", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.at_centre:
        measure(arguments.outage, arguments.uploading)
    else:
        with two_hosts() as enter:
            again = [sys.executable, "-m", "benchmarks.wire.coming_back", *sys.argv[1:], "--at-centre"]
            subprocess.run([*enter, *again], check=True)


def measure(outage: float, uploading: bool) -> None:
    """Print what took how long."""
    port = free_port()
    with Wire() as wire, MosquittoBroker(settings=[f"listener {port} {CENTRE_ADDRESS}"]) as broker:
        watch = Watch(port)
        try:
            watch.seconds_until("Connected")
            time.sleep(2.0)
            started = time.monotonic()
            wire.conditions = Conditions(dead=True)
            if uploading:
                watch.publish(128 * 1024)
            print(f"black hole noticed after {watch.seconds_until('Disconnected'):.1f} s", flush=True)
            time.sleep(max(0.0, outage - (time.monotonic() - started)))
            wire.conditions = Conditions()
            print(f"back {watch.seconds_until('Connected'):.1f} s after the wire is", flush=True)
            broker.stop()
            watch.seconds_until("Disconnected")
            time.sleep(outage)
            broker.start()
            print(f"back {watch.seconds_until('Connected'):.1f} s after the broker is", flush=True)
        finally:
            watch.end()


if __name__ == "__main__":
    main()
