"""MQTT brokers for the demo, the benchmarks and the tests: private processes on the loopback interface.

`MosquittoBroker` is the real thing. `EmbeddedBroker` needs only Python packages, speaks MQTT 3.1.1, keeps
nothing for clients that are away, and forgets a message that is not acknowledged within 5 s: enough for a
demo.
"""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from fedmedclip.protocol.console import at_a_forced_end
from fedmedclip.protocol.errors import InvalidInputError

HOST = "127.0.0.1"
START_SECONDS = 30.0
STOP_SECONDS = 10.0


class BrokerProcess:
    """A broker process as a context manager: started on entry, stopped on exit, its files removed.

    Raises InvalidInputError when it does not come up, with the last lines of its log.
    """

    name = "broker"
    # What clients should set `broker.protocol` to.
    protocol: Literal["auto", "3.1.1"] = "auto"

    def __init__(self, port: int | None = None) -> None:
        self.host = HOST
        self.port = port or free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: Path | None = None
        self._forced_end = ExitStack()

    def __enter__(self) -> Self:
        self._folder = Path(tempfile.mkdtemp(prefix="fedmedclip-broker-"))
        self._forced_end.enter_context(at_a_forced_end(self._kill_now))
        try:
            self.start()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._remove()

    @property
    def log_file(self) -> Path:
        """Where the broker's own messages go."""
        return self._working_folder() / "broker.log"

    @property
    def process_identifier(self) -> int:
        """The running process, for what the system says about it."""
        if self._process is None:
            raise RuntimeError(f"the {self.name} does not run")
        return self._process.pid

    def start(self) -> None:
        """Start the process and wait until it accepts connections."""
        self._check_port()
        command = self.command(self._working_folder())
        with self.log_file.open("ab") as log:
            # Its own session: Ctrl-C in the terminal must reach the broker only after its clients.
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True
            )
        self._wait_until_ready(self._process)

    def stop(self) -> None:
        """End the process in good order; Mosquitto then saves what it holds."""
        if self._process is None:
            return
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def kill(self) -> None:
        """End the process as a power failure would (SIGKILL)."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self.stop()

    def restart(self) -> None:
        """Start again on the same port with the same files; stops first when running."""
        self.stop()
        self.start()

    def command(self, folder: Path) -> list[str]:
        """Return the command line of a broker on `self.port` that keeps its files in `folder`."""
        raise NotImplementedError

    def _check_port(self) -> None:
        try:
            socket.create_server((self.host, self.port)).close()
        except OSError as error:
            raise InvalidInputError(
                f"port {self.port} for the {self.name} is in use by another program ({error.strerror})"
            ) from error

    def _working_folder(self) -> Path:
        if self._folder is None:
            raise RuntimeError("the broker is used outside its `with` block")
        return self._folder

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until and process.poll() is None:
            try:
                socket.create_connection((self.host, self.port), timeout=1.0).close()
                return
            except OSError:
                time.sleep(0.02)
        self.stop()
        last_lines = " / ".join(self.log_file.read_text(errors="replace").splitlines()[-3:])
        raise InvalidInputError(f"the {self.name} does not start on port {self.port}: {last_lines}")

    def _kill_now(self) -> None:
        if self._process is not None:
            self._process.kill()

    def _remove(self) -> None:
        self._forced_end.close()
        self.stop()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None


class EmbeddedBroker(BrokerProcess):
    """amqtt in a Python process of its own."""

    name = "embedded broker"
    # With "auto" a client finds this out too, but needs 5 s: amqtt misreads MQTT 5 and does not answer.
    protocol = "3.1.1"

    def __init__(self, port: int | None = None) -> None:
        if find_spec("amqtt") is None:
            raise InvalidInputError(
                "the embedded broker needs the package amqtt; install fedmedclip-edge[demo], "
                "or use --broker mosquitto"
            )
        super().__init__(port)

    def command(self, folder: Path) -> list[str]:
        """Run the script by its path, so that it also works from a source tree in any folder."""
        script = Path(__file__).with_name("embedded_broker.py")
        return [sys.executable, "-P", str(script), f"{self.host}:{self.port}"]


class MosquittoBroker(BrokerProcess):
    """Mosquitto with persistence and raised queue limits.

    `settings` are further lines for the whole broker, `listener_settings` for the main listener.
    With `websockets` a second listener, on `websocket_port`, speaks MQTT over WebSockets.
    """

    name = "mosquitto broker"

    def __init__(
        self,
        port: int | None = None,
        *,
        websockets: bool = False,
        allow_anonymous: bool = True,
        settings: Sequence[str] = (),
        listener_settings: Sequence[str] = (),
    ) -> None:
        self._binary = find_mosquitto()
        super().__init__(port)
        self.websocket_port = free_port() if websockets else None
        self._allow_anonymous = allow_anonymous
        self._settings = settings
        self._listener_settings = listener_settings

    def forget(self) -> None:
        """Delete what a broker that is down has kept."""
        for file in self._working_folder().glob("mosquitto.db*"):
            file.unlink()

    def command(self, folder: Path) -> list[str]:
        """Write `mosquitto.conf` and return the command that uses it."""
        configuration = folder / "mosquitto.conf"
        configuration.write_text("\n".join(self._configuration_lines(folder)) + "\n")
        return [self._binary, "-c", str(configuration)]

    def _configuration_lines(self, folder: Path) -> list[str]:
        lines = [
            f"allow_anonymous {str(self._allow_anonymous).lower()}",
            "persistence true",
            f"persistence_location {folder}/",
            "autosave_interval 1",
            "max_queued_messages 100000",
            "log_dest stderr",
            "log_type error",
            "log_type warning",
        ]
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            # Started by root it would become the user "mosquitto", who may not write into our folder.
            lines.append("user root")
        lines += self._settings
        lines += [f"listener {self.port} {self.host}", *self._listener_settings]
        if self.websocket_port is not None:
            lines += [f"listener {self.websocket_port} {self.host}", "protocol websockets"]
        return lines


def find_mosquitto() -> str:
    """Return the path of the mosquitto binary; InvalidInputError when it is not installed."""
    search_path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"])
    binary = shutil.which("mosquitto", path=search_path)
    if binary is None:
        raise InvalidInputError("mosquitto is not installed; install mosquitto or use --broker embedded")
    return binary


def free_port() -> int:
    """Return a loopback TCP port that nothing listens on."""
    with socket.create_server((HOST, 0)) as server:
        port: int = server.getsockname()[1]
        return port
