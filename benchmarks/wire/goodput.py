"""How much of what passes a site's wire is heads: encoded updates and versions over all IP bytes.

    sudo python -m benchmarks.wire.goodput --bundle B --data SITE_FOLDER [--rounds 30] [--codec lowrank]

TCP and IP headers, MQTT, acknowledgements, pings, receipts and status all count (`far_site`), from the end of
the first round to that of the last. From the repository's root.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from benchmarks.wire.far_site import FarSite
from benchmarks.wire.two_hosts import two_hosts
from benchmarks.wire.wire import Conditions

# Of an ordinary line to a data centre.
ONE_WAY_SECONDS = 0.01


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
        measure(arguments.bundle, arguments.data, arguments.rounds, arguments.codec)
    else:
        with two_hosts() as enter:
            again = [sys.executable, "-m", "benchmarks.wire.goodput", *sys.argv[1:], "--at-centre"]
            subprocess.run([*enter, *again], check=True)


def measure(bundle: Path, data: Path, rounds: int, codec: str | None) -> None:
    """Run a federation and print what passed the wire in each round."""
    with FarSite(bundle, data, rounds, codec, Conditions(seconds=ONE_WAY_SECONDS)) as federation:
        federation.wait_for_round(1)
        federation.begin_counting()
        federation.wait_for_round(rounds)
        passed, seen = federation.counted()
        federation.finish()
    counted = rounds - 1
    up, down = seen.head_bytes[True], seen.head_bytes[False]
    print(seen.table(counted))
    print(
        f"{counted} rounds, per round: update {up / counted:,.0f}, version {down / counted:,.0f}; "
        f"up {passed.up_bytes / counted:,.0f} in {passed.up_packets / counted:.1f} packets, "
        f"down {passed.down_bytes / counted:,.0f} in {passed.down_packets / counted:.1f}"
    )
    print(
        f"goodput up {up / passed.up_bytes:.3f}, down {down / passed.down_bytes:.3f}, "
        f"together {(up + down) / passed.all_bytes:.3f}"
    )


if __name__ == "__main__":
    main()
