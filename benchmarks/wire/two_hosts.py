"""Two hosts on one machine: Linux network namespaces, which need root and iproute2.

The script that uses them runs on the first host, the centre, and lays the wire to the other (`wire`):

    with two_hosts() as enter:           # where nothing else is yet
        subprocess.run([*enter, sys.executable, ...])
"""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

CENTRE, HOSPITAL = "fedmedclip-centre", "fedmedclip-hospital"
CENTRE_ADDRESS, HOSPITAL_ADDRESS = "10.91.0.1", "10.91.0.2"
AT_HOSPITAL = ["ip", "netns", "exec", HOSPITAL]


@contextmanager
def two_hosts() -> Iterator[list[str]]:
    """Make both; yield what runs a command at the centre."""
    for name in (CENTRE, HOSPITAL):
        ip("netns", "add", name)
    try:
        for name in (CENTRE, HOSPITAL):
            ip("-n", name, "link", "set", "lo", "up")
        yield ["ip", "netns", "exec", CENTRE]
    finally:
        for name in (CENTRE, HOSPITAL):
            ip("netns", "delete", name)


def ip(*arguments: str) -> None:
    """Run iproute2; CalledProcessError where it refuses."""
    subprocess.run(["ip", *arguments], check=True)
