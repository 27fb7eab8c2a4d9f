"""`fedmedclip` commands as processes that are there at once: forked from one that has imported everything.

Python with PyTorch takes about three seconds of processor time before a site does anything. What is forked
is a process like any other, with its own memory, files, connection and log, and it runs the command from
its first line; only the imports are behind it.
"""

import importlib
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

# `torch._dynamo` is what the first optimiser imports.
_IMPORTED = (
    "fedmedclip.command",
    "fedmedclip.aggregator.service",
    "fedmedclip.edge_client.site.service",
    "fedmedclip.edge_client.learning.methods.fedmedclip",
    "torch._dynamo",
)


class ForkServer:
    """Starts commands, from a process of its own that lives until it is closed. The commands outlive it.

    `imported` are the modules that it imports before it starts any.
    """

    def __init__(self, imported: Sequence[str] = _IMPORTED) -> None:
        # Several processes share the cores: spinning threads would slow each other down many times.
        threads = {"OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, *imported],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **threads},
            text=True,
            # Ctrl-C at the terminal is for the benchmark.
            start_new_session=True,
        )

    def close(self) -> None:
        """End its process."""
        self._process.communicate()

    def start(self, arguments: list[str], log_file: Path) -> "ForkedCommand":
        """Start a `fedmedclip` sub-command; its output is added to `log_file`."""
        log_file.parent.mkdir(parents=True, exist_ok=True)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps([str(log_file), *arguments]), file=self._process.stdin, flush=True)
        return ForkedCommand(int(self._process.stdout.readline()), log_file)


class ForkedCommand:
    """A started command."""

    def __init__(self, pid: int, log_file: Path) -> None:
        self.pid = pid
        self.log_file = log_file
        # Unlike its number, this names the process also when it is over. It is no child of this one.
        self._handle = os.pidfd_open(pid)

    @property
    def ended(self) -> bool:
        """Whether the process is over."""
        return bool(select.select([self._handle], [], [], 0.0)[0])

    def kill(self) -> None:
        """End it as a power failure would (SIGKILL), wait until it is gone, and forget it."""
        if not self.ended:
            signal.pidfd_send_signal(self._handle, signal.SIGKILL)
        select.select([self._handle], [], [])
        os.close(self._handle)

    def last_line(self) -> str:
        """Return what it said last."""
        lines = self.log_file.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"


def main() -> None:
    """Fork for each line of standard input, [log file, argument, ...], and print the child's number."""
    for name in sys.argv[1:]:
        importlib.import_module(name)
    # Nobody waits for the children: the system forgets them when they end.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while line := sys.stdin.readline():
        log_file, *arguments = json.loads(line)
        if (child := os.fork()) == 0:
            _run(arguments, log_file)
            return
        print(child, flush=True)


def _run(arguments: list[str], log_file: str) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    output = os.open(log_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    for stream in (1, 2):
        os.dup2(output, stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.argv = ["fedmedclip", *arguments]
    sys.modules["fedmedclip.command"].main()


if __name__ == "__main__":
    main()
