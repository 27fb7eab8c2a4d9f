"""A real `fedmedclip serve` in a process, as a benchmark starts, watches, stops and kills it."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, Protocol

from benchmarks.liveness.forking import ForkServer

IMPORTED = (
    "fedmedclip.command",
    "fedmedclip.edge_client.serving.service",
    "fedmedclip.edge_client.serving.folder.opening",
    "fedmedclip.edge_client.serving.http.door",
    "fedmedclip.edge_client.serving.dicom.node",
    "fedmedclip.edge_client.serving.dicom.report",
    "fedmedclip.edge_client.serving.dicom.source",
    "pydicom.sr._cid_dict",
    "pydicom.sr._concepts_dict",
)
"""What a service imports, at its start and with its first report, for the server that forks it."""
START_SECONDS = 60.0
_TICKS_OF_A_SECOND = os.sysconf("SC_CLK_TCK")
_PAUSE_SECONDS = 0.02

Tables = Mapping[str, Mapping[str, Any]]


class Process(Protocol):
    """A started command."""

    pid: int

    @property
    def ended(self) -> bool:
        """Whether the process is over."""

    def kill(self) -> None:
        """End it (SIGKILL) and wait until it is gone."""


class Resident:
    """The service of the folder `root`, in which lie its configuration, its state and its log.

    `tables` are the tables of `serve.toml` by name; `[http]` gets a free port, which is `port`. With a
    `fork_server` it is there in a fraction of a second.
    """

    def __init__(
        self, root: Path, tables: Tables, fork_server: ForkServer | None = None, threads: int | None = None
    ) -> None:
        self.root = root
        self.log = root / "serve.log"
        self.state = root / str(tables["serve"].get("state", "serve-state"))
        self.port = free_port()
        self.starts = 0
        self._fork_server = fork_server
        self._process: Process | None = None
        root.mkdir(parents=True, exist_ok=True)
        resources = {**({} if threads is None else {"threads": threads}), **tables.get("resources", {})}
        whole = {**tables, "http": {"port": self.port, **tables.get("http", {})}, "resources": resources}
        self.configuration = root / "serve.toml"
        self.configuration.write_text(in_toml(whole), encoding="utf-8")

    @property
    def pid(self) -> int:
        """The number of the process that runs."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it, and return at once."""
        arguments = ["serve", "--config", str(self.configuration)]
        self.starts += 1
        if self._fork_server is not None:
            self._process = self._fork_server.start(arguments, self.log)
            return
        with self.log.open("ab") as log:
            self._process = _Child(
                subprocess.Popen([sys.executable, "-m", "fedmedclip", *arguments], stdout=log, stderr=log)
            )

    def wait_until_ready(self, seconds: float = START_SECONDS) -> float:
        """Return the seconds until it answers; AssertionError where it ends, or never does."""
        began = time.monotonic()
        while not self.is_ready():
            assert self._process is not None
            assert not self._process.ended, f"the service ended: {self.last_lines()}"
            assert time.monotonic() - began < seconds, f"not ready after {seconds} s: {self.last_lines()}"
            time.sleep(_PAUSE_SECONDS)
        return time.monotonic() - began

    def is_ready(self, seconds: float = 5.0) -> bool:
        """Whether it answers that it is ready."""
        try:
            return self.get("/v1/health", seconds)[0] == 200
        except (OSError, HTTPException):
            return False

    def get(self, path: str, seconds: float = 10.0) -> tuple[int, bytes]:
        """Return status and body. Raises OSError and HTTPException."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=seconds)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def answered(self, door: str) -> int:
        """How many images of a door have their answer, since the process began."""
        text = self.get("/metrics")[1].decode()
        counts = re.findall(rf'^fedmedclip_results_total{{door="{door}",.*}} (\S+)$', text, re.MULTILINE)
        return int(sum(map(float, counts)))

    @property
    def ended(self) -> bool:
        """Whether the process is over."""
        return self._process is None or self._process.ended

    def kill(self) -> None:
        """End it as a power failure would."""
        assert self._process is not None
        self._process.kill()
        self._process = None

    def stop(self, seconds: float = 30.0) -> None:
        """End it as a service manager would (SIGTERM); AssertionError where it does not end."""
        if self._process is None or self._process.ended:
            return
        os.kill(self.pid, signal.SIGTERM)
        until = time.monotonic() + seconds
        while not self._process.ended:
            assert time.monotonic() < until, f"it does not end: {self.last_lines()}"
            time.sleep(_PAUSE_SECONDS)
        self.kill()

    def last_lines(self, count: int = 3) -> str:
        """Return what it said last."""
        if not self.log.exists():
            return "it said nothing"
        return " / ".join(self.log.read_text(errors="replace").splitlines()[-count:])

    def memory(self) -> dict[str, float]:
        """Return resident and proportional memory now, and the peak of the resident, in MB (Linux)."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        rollup = Path(f"/proc/{self.pid}/smaps_rollup").read_text()
        return {
            "rss": _megabytes("VmRSS", status),
            "pss": _megabytes("Pss", rollup),
            "peak_rss": _megabytes("VmHWM", status),
        }

    def cpu_seconds(self) -> float:
        """Return the processor seconds that the process has taken."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS_OF_A_SECOND


class _Child:
    def __init__(self, child: "subprocess.Popen[bytes]") -> None:
        self._child = child
        self.pid = child.pid

    @property
    def ended(self) -> bool:
        return self._child.poll() is not None

    def kill(self) -> None:
        self._child.kill()
        self._child.wait()


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port


def in_toml(tables: Tables) -> str:
    """Return tables of texts, numbers, lists and inline tables as TOML."""
    lines = []
    for name, table in tables.items():
        lines.append(f"[{name}]")
        lines += [f"{key} = {_value(value)}" for key, value in table.items()]
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key} = {_value(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    # What JSON and TOML write alike: texts, numbers, true and false.
    return json.dumps(value)


def _megabytes(name: str, text: str) -> float:
    found = re.search(rf"^{name}:\s+(\d+) kB", text, re.MULTILINE)
    assert found is not None
    return round(int(found[1]) * 1024 / 1e6, 1)
