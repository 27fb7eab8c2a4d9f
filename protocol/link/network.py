"""The network thread of the MQTT link: connects, serves the connection, connects again.

It is the only thread that touches paho-mqtt; others hand it work with `post`, and it answers through the
inbox. paho's own thread is not used: its reconnection has no jitter and hides the cause of a failure, and an
exception in a callback ends it silently.
"""

import logging
import random
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import LogLevel
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from fedmedclip.protocol.link.acknowledgements import IDLE_SECONDS
from fedmedclip.protocol.link.client import ClientFactory, ProtocolChoice, connect
from fedmedclip.protocol.link.connection import (
    NETWORK_SECONDS,
    PATIENT_NETWORK_SECONDS,
    LinkClient,
    acknowledge_with_data,
    one_segment,
    unanswered_seconds,
)
from fedmedclip.protocol.link.events import Connected, Disconnected, Inbox
from fedmedclip.protocol.link.limits import BrokerLacksError, limits_of, without_will
from fedmedclip.protocol.link.pulse import Pulse
from fedmedclip.protocol.link.reasons import (
    MESSAGE_REASONS,
    Ending,
    broken_connection,
    connect_failure,
    connection_refused,
    repeated_ending,
)
from fedmedclip.protocol.link.session import Session
from fedmedclip.protocol.link.settings import LinkSettings
from fedmedclip.protocol.link.suspicion import WillSuspicion

logger = logging.getLogger(__name__)

HANDSHAKE_SECONDS = 15.0
# Shorter while it is not known whether the broker understands MQTT 5 (a misreading one never answers), but
# longer on a slow link, which shows while the network connection is made.
UNDECIDED_HANDSHAKE_SECONDS = 5.0
UNDECIDED_PATIENCE = 4.0
# A path on which not even TCP acknowledges CONNECT for so long is dead.
DEAD_PATH_SECONDS = 4.0
# The same for a connection that has been in use: TCP's pauses between repetitions grow to half a minute where
# the other side takes in little.
DEAD_CONNECTION_SECONDS = 30.0
GOODBYE_SECONDS = 2.0
# After this long TCP has acknowledged what was read, and then has to be told again not to hurry.
SETTLING_SECONDS = 0.05
# A connection that lasted this long was a good one: the next failure starts again with the shortest wait.
STABLE_SECONDS = 10.0
# Connections in a row that ended sooner than that before it is worth a remark.
SUSPICIOUS_ENDINGS = 3


class NetworkThread:
    """Keeps one MQTT session connected until it is closed or a failure is fatal."""

    def __init__(self, settings: LinkSettings, factory: ClientFactory, inbox: Inbox, name: str) -> None:
        self.session = Session(settings, inbox, self.post)
        self._name = name
        self._settings = settings
        self._factory = factory
        self._inbox = inbox
        self._choice = ProtocolChoice(settings.protocol)
        self._commands: deque[Callable[[], None]] = deque()
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._wake_reader.setblocking(False)
        self._wake_writer.setblocking(False)
        self._clients: dict[str, LinkClient] = {}
        self._will = WillSuspicion(has_will=factory.has_will)
        self._without_will = False
        self._accepted = False
        self._ever_accepted = False
        self._ending: Ending | None = None
        self._last_error = ""
        self._failures = 0
        self._closing_deadline: float | None = None
        self._thread = threading.Thread(target=self._run, name=f"mqtt-{name}", daemon=True)

    def start(self) -> None:
        """Start connecting."""
        self._thread.start()

    def is_alive(self) -> bool:
        """False once the thread has ended: closed, given up, or by a bug."""
        return self._thread.is_alive()

    def post(self, command: Callable[[], None]) -> None:
        """Run `command` on the network thread soon, in the order of posting."""
        self._commands.append(command)
        # A full buffer wakes the thread as well as one byte more; a thread that ended needs no waking.
        with suppress(OSError):
            self._wake_writer.send(b"\0")

    def close(self, timeout: float) -> None:
        """Send what is queued while connected, at most `timeout` seconds; disconnect; end the thread."""

        def command() -> None:
            self._closing_deadline = time.monotonic() + timeout

        self.post(command)
        self._thread.join(timeout + GOODBYE_SECONDS)
        self._wake_writer.close()

    def _run(self) -> None:
        try:
            while self._closing_deadline is None:
                started = time.monotonic()
                ending = self._one_connection()
                if self._closing_deadline is not None or self._choice.failed(ending):
                    continue
                if ending.fatal and not (ending.unless_accepted and self._ever_accepted):
                    self._inbox.put(Disconnected(ending.reason, fatal=True))
                    return
                delay = self._next_delay(0.0 if self._accepted else time.monotonic() - started)
                self._inbox.put(Disconnected(f"{ending.reason}; trying again in {delay:.2g} s", fatal=False))
                self._pause(delay)
        finally:
            self._wake_reader.close()

    def _one_connection(self) -> Ending:
        """Connect, serve until the connection ends, and say why it ended."""
        protocol = self._choice.current
        leave_out = self._will.leave_out and not self._choice.undecided
        renewed = self._factory.take_renewed_files()
        if protocol not in self._clients or leave_out != self._without_will or renewed:
            self._without_will = leave_out
            self._clients = {protocol: self._new_client(protocol)}
        client = self._clients[protocol]
        self._accepted = False
        self._ending = None
        self._last_error = ""
        started = time.monotonic()
        try:
            # Every second attempt is patient: short ones are back sooner, but never on a very long path.
            patient = self._failures % 2 == 1
            client.network_seconds = PATIENT_NETWORK_SECONDS if patient else NETWORK_SECONDS
            connect(client, self._settings, protocol)
            self._serve(client, time.monotonic() - started)
        except BrokerLacksError as error:
            self._ending = Ending(str(error), fatal=True)
        except OSError as error:
            self._ending = connect_failure(error, self._settings)
        except Exception as error:
            # Also what a callback raised. The connection is given up, so the broker delivers again.
            logger.exception("error in the network thread of the MQTT link")
            self._ending = Ending(f"internal error of the MQTT link ({type(error).__name__}: {error})")
        hung_up = self._ending is None
        ending = self._ending or broken_connection(self._last_error, self._settings)
        close_socket(client)
        lacking = self.session.disconnected(
            blames_message=self._accepted and ending.blames_message,
            hung_up=self._accepted and hung_up and time.monotonic() - started < STABLE_SECONDS,
        )
        if lacking:
            return Ending(f"the broker at {self._settings.address} {lacking}", fatal=True)
        if not self._accepted:
            if hung_up and self._will.refused():
                return Ending(without_will(self._settings), fatal=True, unless_accepted=True)
            return ending
        if time.monotonic() - started > STABLE_SECONDS:
            self._failures = 0
        return repeated_ending(ending, self._name) if self._failures >= SUSPICIOUS_ENDINGS else ending

    def _serve(self, client: LinkClient, connect_seconds: float) -> None:
        started = time.monotonic()
        pulse = Pulse(self._settings.keepalive_seconds, started)
        readable = False
        while (connection := client.socket()) is not None:
            acknowledge_with_data(connection)
            readable = self._wait(connection, client.want_write(), SETTLING_SECONDS if readable else 1.0)
            self._run_commands()
            if readable:
                client.loop_read()
                pulse.heard(time.monotonic())
            leaving = self._closing_deadline is not None and self._may_leave()
            company = leaving or client.want_write() or self.session.can_send
            if company or self.session.acknowledgements.due(time.monotonic()):
                self.session.acknowledgements.send()
            self.session.send_waiting()
            self.session.ask_again(time.monotonic())
            if leaving:
                say_goodbye(client)
                return
            if (connection := client.socket()) is not None and client.want_write():
                with one_segment(connection):
                    client.loop_write()
                pulse.sent(time.monotonic())
            if self._ending is None and client.socket() is not None:
                self._ending = (
                    self._silence(client, pulse)
                    if self._accepted
                    else self._unanswered(client, time.monotonic() - started, connect_seconds)
                )
            if self._ending is not None:
                return

    def _unanswered(self, client: LinkClient, elapsed: float, connect_seconds: float) -> Ending | None:
        """Give up a handshake: soon where the path is dead, later where the broker is but slow."""
        if unanswered_seconds(client.socket()) > max(DEAD_PATH_SECONDS, 2 * connect_seconds):
            return Ending(f"no answer from {self._settings.address}")
        patience = HANDSHAKE_SECONDS
        if self._choice.undecided:
            patience = min(patience, UNDECIDED_HANDSHAKE_SECONDS + UNDECIDED_PATIENCE * connect_seconds)
        if elapsed <= patience:
            return None
        return Ending(f"no MQTT answer from {self._settings.address}", silent=True, unanswered=True)

    def _silence(self, client: LinkClient, pulse: Pulse) -> Ending | None:
        """Test a connection on which nothing comes, and give it up when the test is not answered."""
        now = time.monotonic()
        if pulse.ping_due(now):
            client.ping()
            pulse.asked(now)
        if not pulse.lost(now, 0):
            return None
        path_lives = unanswered_seconds(client.socket()) <= DEAD_CONNECTION_SECONDS
        if path_lives and not pulse.lost(now, self.session.sending_bytes):
            return None
        return Ending(f"{self._settings.address} has not answered for {pulse.silence(now):.0f} s")

    def _may_leave(self) -> bool:
        late = self._closing_deadline is not None and time.monotonic() > self._closing_deadline
        return self.session.idle or late

    def _wait(self, connection: Any, wants_write: bool, seconds: float) -> bool:
        """Wait for the network or for work, at most so long; return whether there is something to read."""
        if self._inbox.full:
            select.select([self._wake_reader], [connection] if wants_write else [], [], 0.05)
            return False
        # TLS may hold decrypted bytes that select does not see.
        buffered = hasattr(connection, "pending") and connection.pending() > 0
        if self.session.acknowledgements:
            seconds = IDLE_SECONDS
        if buffered or self.session.can_send:
            seconds = 0.0
        readers = [self._wake_reader, connection]
        readable, _, _ = select.select(readers, [connection] if wants_write else [], [], seconds)
        return buffered or connection in readable

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while self._closing_deadline is None and (remaining := until - time.monotonic()) > 0:
            select.select([self._wake_reader], [], [], remaining)
            self._run_commands()

    def _run_commands(self) -> None:
        with suppress(BlockingIOError):
            while self._wake_reader.recv(4096):
                continue
        while self._commands:
            self._commands.popleft()()

    def _next_delay(self, tried_seconds: float) -> float:
        """Seconds to wait, doubling with each failure; those of a failed attempt count as waited.

        Random on purpose, unlike every other draw of the project: hundreds of sites that lost one broker
        must not come back in step.
        """
        longest = self._settings.longest_retry_seconds
        base = min(longest / 2, self._settings.first_retry_seconds * 2.0 ** min(self._failures, 20))
        self._failures += 1
        chance = random.SystemRandom()
        least = chance.uniform(0, self._settings.first_retry_seconds)
        return max(least, chance.uniform(base, 2 * base) - tried_seconds)

    def _new_client(self, protocol: str) -> LinkClient:
        client = self._factory.make(protocol, leave_will=not self._without_will)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_log = self._on_log
        self.session.attach(client)
        return client

    def _on_connect(
        self, client: paho.Client, data: Any, flags: Any, reason: ReasonCode, properties: Properties | None
    ) -> None:
        if reason.is_failure:
            self._ending = connection_refused(reason.getName(), self._settings)
            return
        self._will.accepted(without=self._without_will)
        if self._without_will:
            # It was to see whether the broker hangs up over the will; without one nobody learns of our end.
            self._ending = Ending(f"{self._settings.address} accepts the connection without a last will")
            return
        limits = self.session.bounded(limits_of(properties, self._settings))
        self._accepted = self._ever_accepted = True
        self._choice.succeeded()
        self._inbox.put(Connected(bool(flags.session_present), self._choice.current, limits.payload))
        self.session.connected(client, limits)

    def _on_disconnect(
        self, client: paho.Client, data: Any, flags: Any, reason: ReasonCode, properties: Any
    ) -> None:
        if self._ending is not None:
            return
        name = reason.getName()
        if flags.is_disconnect_packet_from_server:
            self._ending = connection_refused(name, self._settings)
        elif name in MESSAGE_REASONS:
            self._ending = Ending(f"{name.lower()} talking to {self._settings.address}", blames_message=True)

    def _on_log(self, client: paho.Client, data: Any, level: int, text: str) -> None:
        # The only place where paho tells the cause of a broken connection.
        if level == LogLevel.MQTT_LOG_ERR:
            self._last_error = text.removeprefix("failed to receive on socket: ")
            logger.debug("paho: %s", text)


def say_goodbye(client: paho.Client) -> None:
    """Send DISCONNECT, so that the broker does not publish the last will."""
    client.disconnect()
    until = time.monotonic() + GOODBYE_SECONDS
    while (connection := client.socket()) is not None and time.monotonic() < until:
        select.select([], [connection], [], 0.1)
        client.loop_write()


def close_socket(client: paho.Client) -> None:
    """Close what is left of a connection."""
    if (connection := client.socket()) is not None:
        with suppress(OSError):
            connection.close()
