"""Keeps the clients and roles of the broker equal to who is wanted there, through Mosquitto's own plugin.

A state machine without I/O: what happens is handed in, and what it returns is to be published on
`CONTROL_TOPIC`; answers come on `RESPONSE_TOPIC`. At each connection, and whenever somebody else is wanted,
it reads what the broker has, sends what changes that into what is wanted, and reads again to see it done.
Whoever is no longer wanted is deleted, which ends its connection at once.

Clients and roles that are not of this federation stay as they are, and so does what the aggregator itself
may: to change that would end its own connection.
"""

import itertools
import logging
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from fedmedclip.aggregator.authority.access_rules import (
    AGGREGATOR,
    CONTROL_TOPIC,
    RESPONSE_TOPIC,
    Role,
    WantedAccess,
    role_prefix,
    rules_of,
    wanted_roles,
)

__all__ = ["CONTROL_TOPIC", "RESPONSE_TOPIC", "BrokerAccess", "WantedAccess"]

log = logging.getLogger("fedmedclip.aggregator")

ANSWER_SECONDS = 10.0
# Times that a question is asked, and that what was read is changed, before it is said that it does not work.
ATTEMPTS = 3
# Afterwards it is tried again without a word, after a pause that doubles. In it no new connection is used
# either: some brokers end the connection of who asks what it may not.
SHORTEST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 60.0, 3600.0
_MOST_NAMED = 12
_READ = ("getDefaultACLAccess", "listClients", "listRoles")

Command = dict[str, Any]


class _RoleName(msgspec.Struct):
    rolename: str


class _Client(msgspec.Struct):
    username: str
    roles: list[_RoleName] = []
    groups: list[Any] = []
    disabled: bool = False


class _Rule(msgspec.Struct):
    acltype: str
    topic: str
    allow: bool = True


class _BrokersRole(msgspec.Struct):
    rolename: str
    acls: list[_Rule] = []


class _Default(msgspec.Struct):
    acltype: str
    allow: bool


class _Data(msgspec.Struct):
    clients: list[_Client] = []
    roles: list[_BrokersRole] = []
    acls: list[_Default] = []


class _Response(msgspec.Struct):
    command: str
    correlation: str = msgspec.field(name="correlationData", default="")
    error: str = ""
    data: _Data | None = None


class _Responses(msgspec.Struct):
    responses: list[_Response]


class BrokerAccess:
    """The state: who is wanted, and how far the broker is known to have it."""

    def __init__(self, federation: str) -> None:
        self._federation = federation
        self._wanted = WantedAccess()
        self._applied: WantedAccess | None = None
        self._connected = False
        self._largest = 0
        self._numbers = itertools.count(1)
        # The answers that are awaited: a number, which stands in them, and how many.
        self._question = ""
        self._outstanding = 0
        self._reading = False
        self._read: dict[str, _Data] = {}
        self._again_at: float | None = None
        self._unanswered = 0
        self._changes = 0
        self._pause = SHORTEST_PAUSE_SECONDS
        self._paused_until: float | None = None
        self._faulty = False
        self._warned: set[str] = set()

    @property
    def applied(self) -> WantedAccess | None:
        """Who is known to get through to the broker on this connection; None until that is known."""
        return self._applied

    def want(self, wanted: WantedAccess, now: float) -> list[bytes]:
        """Take over who is wanted; return what to publish."""
        if wanted == self._wanted:
            return []
        self._wanted = wanted
        self._changes = 0
        return self._begin(now)

    def connected(self, largest_payload: int, now: float) -> list[bytes]:
        """A connection began, which lets through messages of `largest_payload` bytes."""
        self._connected, self._largest = True, largest_payload
        self._changes = 0
        return self._begin(now)

    def disconnected(self) -> None:
        """A connection ended: what the broker has is no longer known."""
        self._connected, self._again_at, self._applied = False, None, None
        # The question may be what ended it.
        self._unanswered += bool(self._question)
        self._question = ""

    def refused(self, reason: str, now: float) -> None:
        """The broker does not let the aggregator manage access, or does not know how."""
        self._give_up(f"the broker does not let this aggregator manage who may do what ({reason})", now)

    def answered(self, payload: bytes, now: float) -> list[bytes]:
        """Handle a message on `RESPONSE_TOPIC`; return what to publish."""
        try:
            responses = msgspec.json.decode(payload, type=_Responses).responses
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            log.warning("an answer of the broker about access cannot be read: %s", error)
            return []
        ours = [
            response for response in responses if self._question and response.correlation == self._question
        ]
        for response in ours:
            if response.error:
                self._say_once(f"the broker answers {response.command} with: {response.error}")
            elif response.data is not None:
                self._read[response.command] = response.data
        self._outstanding -= len(ours)
        if not ours or self._outstanding > 0:
            return []
        self._unanswered = 0
        return self._compare(now) if self._reading else self._ask(now)

    def tick(self, now: float) -> list[bytes]:
        """Ask again when an answer is overdue; return what to publish."""
        if self._again_at is None or now < self._again_at:
            return []
        self._unanswered += bool(self._question)
        return self._begin(now)

    def _begin(self, now: float) -> list[bytes]:
        self._applied = None
        if not self._connected:
            return []
        if self._paused_until is not None and now < self._paused_until:
            self._again_at = self._paused_until
            return []
        if self._unanswered < ATTEMPTS:
            return self._ask(now)
        missing = "the broker does not say who may do what; has it the plugin mosquitto_dynamic_security?"
        self._give_up(missing, now)
        return []

    def _ask(self, now: float) -> list[bytes]:
        """Ask for all that the broker has."""
        self._read, self._reading = {}, True
        return self._send([{"command": name, "verbose": True} for name in _READ], now)

    def _compare(self, now: float) -> list[bytes]:
        if any(name not in self._read for name in _READ):
            self._give_up("the broker does not say who may do what", now)
            return []
        self._look_at_defaults(self._read["getDefaultACLAccess"].acls)
        commands = list(
            changes(
                role_prefix(self._federation),
                wanted_roles(self._federation, self._wanted),
                self._read["listClients"].clients,
                self._read["listRoles"].roles,
            )
        )
        self._read, self._reading = {}, False
        if not commands:
            self._question, self._again_at, self._changes, self._faulty = "", None, 0, False
            self._pause, self._paused_until = SHORTEST_PAUSE_SECONDS, None
            self._applied = self._wanted
            return []
        self._changes += 1
        if self._changes > ATTEMPTS:
            self._give_up(f"the broker does not take over who may do what ({_in_words(commands[0])})", now)
            return []
        words = list(map(_in_words, commands))
        more = f" and {len(words) - _MOST_NAMED} more" if len(words) > _MOST_NAMED else ""
        log.info("access at the broker: %s%s", ", ".join(words[:_MOST_NAMED]), more)
        return self._send(commands, now)

    def _send(self, commands: list[Command], now: float) -> list[bytes]:
        self._question = str(next(self._numbers))
        self._outstanding = len(commands)
        self._again_at = now + ANSWER_SECONDS
        return batches([command | {"correlationData": self._question} for command in commands], self._largest)

    def _give_up(self, words: str, now: float) -> None:
        self._question = ""
        self._paused_until = self._again_at = now + self._pause
        self._pause = min(2 * self._pause, LONGEST_PAUSE_SECONDS)
        self._unanswered = self._changes = 0
        if not self._faulty:
            self._faulty = True
            log.warning("%s; its rules have to be changed by hand when members join or leave", words)

    def _say_once(self, words: str) -> None:
        if words not in self._warned:
            self._warned.add(words)
            log.warning("%s", words, extra={"event": "broker.access_remark"})

    def _look_at_defaults(self, defaults: list[_Default]) -> None:
        for default in defaults:
            if default.allow and default.acltype != "unsubscribe":
                self._say_once(
                    f"the broker allows {default.acltype} to whom it knows nothing of, so also to who was "
                    f"revoked; change it: mosquitto_ctrl dynsec setDefaultACLAccess {default.acltype} deny"
                )


def changes(
    prefix: str, wanted: dict[str, Role], clients: Iterable[_Client], roles: Iterable[_BrokersRole]
) -> Iterator[Command]:
    """Yield the plugin's commands that make what the broker has into what is wanted; who leaves comes first.

    `prefix` begins the names of the roles that are the federation's. The aggregator itself is left alone.
    """
    ours = {role.rolename: role for role in roles if role.rolename.startswith(prefix)}
    present = {client.username: client for client in clients}
    for name, client in present.items():
        if name == AGGREGATOR:
            continue
        role = wanted.get(name)
        superfluous = [
            held.rolename
            for held in client.roles
            if held.rolename.startswith(prefix) and (role is None or held.rolename != role.name)
        ]
        if superfluous and len(superfluous) == len(client.roles) and not client.groups and role is None:
            # Its connection ends with it.
            yield {"command": "deleteClient", "username": name}
            continue
        for rolename in superfluous:
            yield {"command": "removeClientRole", "username": name, "rolename": rolename}
    names = {role.name for role in wanted.values()}
    for rolename in ours:
        if rolename not in names:
            yield {"command": "deleteRole", "rolename": rolename}
    for name, role in wanted.items():
        if name != AGGREGATOR:
            yield from _additions(name, role, present.get(name), ours.get(role.name))


def _additions(
    name: str, role: Role, client: _Client | None, brokers: _BrokersRole | None
) -> Iterator[Command]:
    if brokers is None:
        yield {"command": "createRole", "rolename": role.name, "acls": rules_of(role)}
    elif {(rule.acltype, rule.topic, rule.allow) for rule in brokers.acls} != {
        (kind, topic, True) for kind, topic in role.allowed
    }:
        yield {"command": "modifyRole", "rolename": role.name, "acls": rules_of(role)}
    if client is None:
        yield {"command": "createClient", "username": name, "roles": [{"rolename": role.name}]}
        return
    if role.name not in {held.rolename for held in client.roles}:
        yield {"command": "addClientRole", "username": name, "rolename": role.name}
    if client.disabled:
        yield {"command": "enableClient", "username": name}


def batches(commands: Iterable[Command], largest: int) -> list[bytes]:
    """Return messages with these commands in their order, none of more than `largest` bytes."""
    found: list[list[bytes]] = []
    size = largest
    for command in map(msgspec.json.encode, commands):
        if size + len(command) + 1 > largest:
            found.append([])
            size = len(b'{"commands":[]}')
        found[-1].append(command)
        size += len(command) + 1
    return [b'{"commands":[' + b",".join(batch) + b"]}" for batch in found]


def _in_words(command: Command) -> str:
    return f"{command['command']} {command.get('username', command.get('rolename', ''))}"
