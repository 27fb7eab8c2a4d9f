"""Two hosts on one machine, with a wire between them that counts, and that can become a black hole.

Linux network namespaces (root, iproute2). The script that uses them runs on the first host, the centre:

    with two_hosts() as enter:           # where nothing else is yet
        subprocess.run([*enter, sys.executable, ...])
"""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CENTRE, HOSPITAL = "fedmedclip-centre", "fedmedclip-hospital"
CENTRE_ADDRESS, HOSPITAL_ADDRESS = "10.91.0.1", "10.91.0.2"
AT_HOSPITAL = ["ip", "netns", "exec", HOSPITAL]
_ETHERNET_BYTES = 14


@contextmanager
def two_hosts() -> Iterator[list[str]]:
    """Make both; yield what runs a command at the centre."""
    for name in (CENTRE, HOSPITAL):
        _ip("netns", "add", name)
    try:
        _ip(
            "link",
            "add",
            "wire0",
            "netns",
            CENTRE,
            "type",
            "veth",
            "peer",
            "name",
            "wire1",
            "netns",
            HOSPITAL,
        )
        ends = ((CENTRE, "wire0", CENTRE_ADDRESS), (HOSPITAL, "wire1", HOSPITAL_ADDRESS))
        for name, device, address in ends:
            # One packet per segment, as a real wire has; no neighbours are looked for by IPv6.
            _ip("-n", name, "link", "set", device, "gso_max_segs", "1", "addrgenmode", "none")
            _ip("-n", name, "addr", "add", f"{address}/24", "dev", device)
            _ip("-n", name, "link", "set", device, "up")
            _ip("-n", name, "link", "set", "lo", "up")
        yield ["ip", "netns", "exec", CENTRE]
    finally:
        for name in (CENTRE, HOSPITAL):
            _ip("netns", "delete", name)


def wire() -> dict[str, int]:
    """Return IP bytes and packets so far: up_bytes, up_packets, down_bytes, down_packets; at the centre."""
    folder = Path("/sys/class/net/wire0/statistics")
    read = {
        f"{way}_{what}": int((folder / f"{side}_{what}").read_text())
        for way, side in (("up", "rx"), ("down", "tx"))
        for what in ("bytes", "packets")
    }
    for way in ("up", "down"):
        read[f"{way}_bytes"] -= _ETHERNET_BYTES * read[f"{way}_packets"]
    return read


def black_hole(on: bool) -> None:
    """Let nothing more reach the hospital, without a word to either side; or let it again."""
    _ip("-n", CENTRE, "route", "add" if on else "delete", "blackhole", f"{HOSPITAL_ADDRESS}/32")


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)
