"""A wire between two hosts that counts every IP packet, and that can be slow, long, lossy or dead.

    with Wire() as wire:                              # in a script at the centre (`two_hosts`)
        wire.conditions = Conditions(loss=0.05)       # at any time
        before = wire.passed()

Two TUN devices, one on each host, and a thread that carries packets from one to the other: what it drops is
lost to the TCP of both hosts, as on a real wire. The kernels of small machines have no netem.
"""

import fcntl
import heapq
import itertools
import os
import random
import select
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from types import TracebackType
from typing import Self

from benchmarks.wire.two_hosts import CENTRE_ADDRESS, HOSPITAL, HOSPITAL_ADDRESS, ip

CENTRE_DEVICE, HOSPITAL_DEVICE = "wire0", "wire1"
# linux/if_tun.h: TUNSETIFF, and IFF_TUN | IFF_NO_PI: whole IP packets and nothing else.
_TUNSETIFF, _FLAGS = 0x400454CA, 0x1001
LONGEST_PACKET = 65536
# What a slow wire takes in before it drops: the queue of a usual network device.
QUEUED_PACKETS = 100


@dataclass(frozen=True)
class Conditions:
    """What the wire does to packets, the same both ways; `seconds` is the delay in one of them.

    `loss` is the share of packets that vanish, at random; a `dead` wire lets nothing through, without a word.
    """

    bits_per_second: float | None = None
    seconds: float = 0.0
    loss: float = 0.0
    dead: bool = False


@dataclass
class Passed:
    """IP packets that were put on the wire, whether they arrived or not, and their bytes."""

    up_bytes: int = 0
    up_packets: int = 0
    down_bytes: int = 0
    down_packets: int = 0

    @property
    def all_bytes(self) -> int:
        """Both ways together."""
        return self.up_bytes + self.down_bytes

    def since(self, before: "Passed") -> "Passed":
        """Return what came after `before`."""
        return Passed(*(getattr(self, one.name) - getattr(before, one.name) for one in fields(self)))


class Wire:
    """Lies while the context lasts. `listener(up, packet)` is told of every packet that is put on it."""

    def __init__(
        self,
        listener: Callable[[bool, bytes], None] | None = None,
        conditions: Conditions | None = None,
        seed: int = 0,
    ) -> None:
        self.conditions = conditions or Conditions()
        self._listener = listener
        self._chance = random.Random(seed)
        self._passed = Passed()
        self._numbers = itertools.count()
        self._under_way: list[tuple[float, int, int, bytes]] = []
        self._free_at = {True: 0.0, False: 0.0}
        self._ends: dict[bool, int] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._carry, daemon=True)

    def __enter__(self) -> Self:
        for at_hospital, device in ((False, CENTRE_DEVICE), (True, HOSPITAL_DEVICE)):
            end = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
            fcntl.ioctl(end, _TUNSETIFF, struct.pack("16sH", device.encode(), _FLAGS))
            self._ends[at_hospital] = end
        # A device that is moved to another host keeps its other end here.
        ip("link", "set", HOSPITAL_DEVICE, "netns", HOSPITAL)
        for at, device, own, other in (
            ([], CENTRE_DEVICE, CENTRE_ADDRESS, HOSPITAL_ADDRESS),
            (["-n", HOSPITAL], HOSPITAL_DEVICE, HOSPITAL_ADDRESS, CENTRE_ADDRESS),
        ):
            ip(*at, "link", "set", device, "addrgenmode", "none")
            ip(*at, "addr", "add", own, "peer", other, "dev", device)
            ip(*at, "link", "set", device, "up")
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        for end in self._ends.values():
            os.close(end)

    def passed(self) -> Passed:
        """Return what was put on the wire so far."""
        return self._passed.since(Passed())

    def _carry(self) -> None:
        while not self._over.is_set():
            wait = 0.1
            if self._under_way:
                wait = min(wait, max(0.0, self._under_way[0][0] - time.monotonic()))
            readable, _, _ = select.select(list(self._ends.values()), [], [], wait)
            for from_hospital, end in self._ends.items():
                if end in readable:
                    self._take(from_hospital, os.read(end, LONGEST_PACKET))
            while self._under_way and self._under_way[0][0] <= time.monotonic():
                *_, target, packet = heapq.heappop(self._under_way)
                os.write(target, packet)

    def _take(self, up: bool, packet: bytes) -> None:
        way = "up" if up else "down"
        for what, amount in (("bytes", len(packet)), ("packets", 1)):
            setattr(self._passed, f"{way}_{what}", getattr(self._passed, f"{way}_{what}") + amount)
        if self._listener is not None:
            self._listener(up, packet)
        conditions = self.conditions
        full = len(self._under_way) >= 2 * QUEUED_PACKETS
        if conditions.dead or full or self._chance.random() < conditions.loss:
            return
        sent = time.monotonic()
        if conditions.bits_per_second is not None:
            sent = max(sent, self._free_at[up]) + 8 * len(packet) / conditions.bits_per_second
            self._free_at[up] = sent
        entry = (sent + conditions.seconds, next(self._numbers), self._ends[not up], packet)
        heapq.heappush(self._under_way, entry)
