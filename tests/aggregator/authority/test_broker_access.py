"""Which commands follow from what the broker has, and what is done when it does not answer."""

import logging
import re
import time

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmedclip.aggregator.authority.access_rules import (
    AGGREGATOR,
    RESPONSE_TOPIC,
    WantedAccess,
    aggregator_role,
    role_prefix,
    rules_of,
    site_role,
    wanted_roles,
)
from fedmedclip.aggregator.authority.broker_access import (
    ANSWER_SECONDS,
    ATTEMPTS,
    CONTROL_TOPIC,
    LONGEST_PAUSE_SECONDS,
    SHORTEST_PAUSE_SECONDS,
    BrokerAccess,
    batches,
)
from fedmedclip.protocol.link.link import Connected, PublishRefused, SubscriptionRefused
from tests.aggregator.authority.secured import SecuredBroker, managed
from tests.protocol.link.helpers import open_link, unique, wait_for

FEDERATION, OTHER = "brain-mri", "retina"
LARGEST = 4096


class Plugin:
    """What Mosquitto's plugin does with these commands, as tests with a real one have it."""

    def __init__(self):
        self.clients = {AGGREGATOR: {aggregator_role(FEDERATION).name}}
        self.roles = {aggregator_role(FEDERATION).name: rules_of(aggregator_role(FEDERATION))}
        self.disabled = set()

    def answer(self, payload):
        commands = msgspec.json.decode(payload)["commands"]
        answers = [{"command": c["command"], "correlationData": c["correlationData"]} for c in commands]
        for command, answer in zip(commands, answers, strict=True):
            result = getattr(self, command.pop("command"))(**command)
            if result is not None:
                answer["data"] = result
        return msgspec.json.encode({"responses": answers})

    def getDefaultACLAccess(self, **_):  # noqa: N802
        return {"acls": [{"acltype": "subscribe", "allow": False}, {"acltype": "unsubscribe", "allow": True}]}

    def listClients(self, **_):  # noqa: N802
        return {
            "clients": [
                {
                    "username": name,
                    "roles": [{"rolename": role} for role in sorted(held)],
                    "disabled": name in self.disabled,
                }
                for name, held in self.clients.items()
            ]
        }

    def listRoles(self, **_):  # noqa: N802
        return {"roles": [{"rolename": name, "acls": rules} for name, rules in self.roles.items()]}

    def createRole(self, rolename, acls, **_):  # noqa: N802
        assert rolename not in self.roles
        self.roles[rolename] = acls

    def modifyRole(self, rolename, acls, **_):  # noqa: N802
        assert rolename in self.roles
        self.roles[rolename] = acls

    def deleteRole(self, rolename, **_):  # noqa: N802
        del self.roles[rolename]
        for held in self.clients.values():
            held.discard(rolename)

    def createClient(self, username, roles, **_):  # noqa: N802
        assert username not in self.clients
        self.clients[username] = {role["rolename"] for role in roles}
        assert self.clients[username] <= self.roles.keys()

    def deleteClient(self, username, **_):  # noqa: N802
        del self.clients[username]

    def addClientRole(self, username, rolename, **_):  # noqa: N802
        assert rolename in self.roles
        self.clients[username].add(rolename)

    def removeClientRole(self, username, rolename, **_):  # noqa: N802
        self.clients[username].remove(rolename)

    def enableClient(self, username, **_):  # noqa: N802
        self.disabled.remove(username)


def converse(access, plugin, commands, now=0.0):
    """Carry commands and answers until there are no more; return all commands."""
    said = list(commands)
    while commands:
        answers = [plugin.answer(payload) for payload in commands]
        commands = [command for answer in answers for command in access.answered(answer, now)]
        said += commands
    return said


def connected(access, plugin):
    return converse(access, plugin, access.connected(LARGEST, 0.0))


SITES = st.frozensets(st.sampled_from([f"hospital-{letter}" for letter in "abcde"]))
INVITATIONS = st.frozensets(st.sampled_from(["0123456789abcdef", "fedcba9876543210"]))
WANTED = st.builds(WantedAccess, SITES, INVITATIONS)


@given(WANTED, WANTED, SITES, SITES, SITES)
def test_whatever_the_broker_has_becomes_what_is_wanted_and_others_stay(before, wanted, damaged, off, shared):
    plugin, access = Plugin(), BrokerAccess(FEDERATION)
    access.want(before, 0.0)
    connected(access, plugin)
    foreign = aggregator_role(OTHER)
    plugin.roles[foreign.name] = rules_of(foreign)
    plugin.clients |= {"monitor": {foreign.name}, "nobody": set()}
    for site in before.sites & damaged:
        plugin.roles[site_role(FEDERATION, site).name] = [
            {"acltype": "subscribePattern", "topic": "#", "allow": True}
        ]
    for site in before.sites & shared:
        plugin.clients[site].add(foreign.name)
    plugin.disabled |= before.sites & off
    access.disconnected()
    access.want(wanted, 0.0)
    connected(access, plugin)
    assert access.applied == wanted
    roles = wanted_roles(FEDERATION, wanted)
    assert {name for name in plugin.roles if name.startswith(role_prefix(FEDERATION))} == {
        role.name for role in roles.values()
    }
    for name, role in roles.items():
        assert role.name in plugin.clients[name]
        assert plugin.roles[role.name] == rules_of(role)
        assert name not in plugin.disabled
    left = plugin.clients.keys() - roles.keys()
    assert left == {"monitor", "nobody"} | ((before.sites & shared) - wanted.sites)
    assert all(plugin.clients[name] <= {foreign.name} for name in left)


def test_nothing_is_sent_when_nothing_has_changed():
    plugin, access = Plugin(), BrokerAccess(FEDERATION)
    wanted = WantedAccess(frozenset({"hospital-a"}))
    access.want(wanted, 0.0)
    connected(access, plugin)
    assert access.want(WantedAccess(frozenset({"hospital-a"})), 1.0) == []
    assert access.tick(1e6) == []
    access.disconnected()
    assert access.applied is None
    # At the next connection it only looks.
    assert len(connected(access, plugin)) == 1


def test_who_is_wanted_meanwhile_is_not_forgotten():
    plugin, access = Plugin(), BrokerAccess(FEDERATION)
    asked = access.connected(LARGEST, 0.0)
    wanted = WantedAccess(frozenset({"hospital-a"}))
    again = access.want(wanted, 0.1)
    assert converse(access, plugin, asked) == asked  # what was answered late is of no use
    converse(access, plugin, again)
    assert access.applied == wanted


def test_many_sites_travel_in_messages_that_the_broker_takes():
    plugin, access = Plugin(), BrokerAccess(FEDERATION)
    wanted = WantedAccess(frozenset(f"hospital-{number}" for number in range(200)))
    access.want(wanted, 0.0)
    said = connected(access, plugin)
    assert access.applied == wanted
    assert max(map(len, said)) <= LARGEST
    assert batches([], LARGEST) == []


def test_silence_is_said_once_and_asked_about_ever_more_rarely(caplog):
    access, now = BrokerAccess(FEDERATION), 0.0
    asked = [(now, access.connected(LARGEST, now))]
    with caplog.at_level(logging.WARNING):
        for _ in range(50_000):
            now += 1.0
            if commands := access.tick(now):
                asked.append((now, commands))
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "mosquitto_dynamic_security" in caplog.text
    times = [moment for moment, _ in asked]
    assert times[ATTEMPTS - 1] == (ATTEMPTS - 1) * ANSWER_SECONDS
    assert times[ATTEMPTS] >= SHORTEST_PAUSE_SECONDS
    assert len(times) < ATTEMPTS * (6 + 50_000 / LONGEST_PAUSE_SECONDS)
    plugin = Plugin()
    converse(access, plugin, access.tick(now + 2 * LONGEST_PAUSE_SECONDS))
    assert access.applied == WantedAccess()


def test_a_question_that_ends_the_connection_is_not_asked_at_each_of_them():
    access, asked = BrokerAccess(FEDERATION), 0
    for second in range(50):
        asked += len(access.connected(LARGEST, float(second)))
        access.disconnected()
    assert asked == ATTEMPTS


def test_a_broker_that_never_takes_it_over_is_left_alone(caplog):
    class Stubborn(Plugin):
        def createClient(self, **_):  # noqa: N802
            return None

        def createRole(self, **_):  # noqa: N802
            return None

    access = BrokerAccess(FEDERATION)
    access.want(WantedAccess(frozenset({"hospital-a"})), 0.0)
    said = connected(access, Stubborn())
    assert len(said) == 2 * ATTEMPTS + 1
    assert "createRole" in caplog.text
    assert access.applied is None


@pytest.mark.parametrize(
    "payload",
    [b"", b"{", b"\xff", b"[]", b'{"responses":[{}]}', b'{"responses":[{"command":1}]}', b'{"responses":{}}'],
)
def test_what_is_no_answer_changes_nothing(payload):
    plugin, access = Plugin(), BrokerAccess(FEDERATION)
    asked = access.connected(LARGEST, 0.0)
    assert access.answered(payload, 0.0) == []
    converse(access, plugin, asked)
    assert access.applied == WantedAccess()


def test_errors_are_said_and_end_nothing(caplog):
    access = BrokerAccess(FEDERATION)
    (asked,) = access.connected(LARGEST, 0.0)
    commands = msgspec.json.decode(asked)["commands"]
    errors = [
        {"command": c["command"], "error": "No", "correlationData": c["correlationData"]} for c in commands
    ]
    assert access.answered(msgspec.json.encode({"responses": errors}), 0.0) == []
    assert "listClients with: No" in caplog.text
    assert access.tick(1.0) == []
    assert access.tick(SHORTEST_PAUSE_SECONDS) != []


def test_a_default_that_lets_strangers_read_is_said(caplog):
    class Careless(Plugin):
        def getDefaultACLAccess(self, **_):  # noqa: N802
            return {"acls": [{"acltype": "publishClientReceive", "allow": True}]}

    connected(BrokerAccess(FEDERATION), Careless())
    assert "setDefaultACLAccess publishClientReceive deny" in caplog.text


def test_a_broker_that_does_not_let_the_aggregator_do_it(tmp_path, mosquitto_installed, caplog):
    member = WantedAccess(frozenset({"hospital-a"}))
    access = BrokerAccess("brain-mri")
    with SecuredBroker(tmp_path, member) as broker, broker.open("hospital-a") as link:
        link.subscribe(RESPONSE_TOPIC)
        for payload in access.connected(wait_for(link, Connected).largest_payload, 0.0):
            link.publish(CONTROL_TOPIC, payload)
        for kind in (SubscriptionRefused, PublishRefused):
            access.refused(wait_for(link, kind).reason, 0.0)
    assert len([record for record in caplog.records if "by hand" in record.message]) == 1


def test_a_broker_without_the_plugin_answers_nothing(mosquitto, caplog):
    access = BrokerAccess(FEDERATION)
    with open_link(mosquitto, unique("centre")) as link:
        link.subscribe(RESPONSE_TOPIC)
        access.connected(wait_for(link, Connected).largest_payload, 0.0)
        for attempt in range(ATTEMPTS):
            link.publish(CONTROL_TOPIC, b"{}")
            until = time.monotonic() + 0.2
            while time.monotonic() < until:
                assert not isinstance(link.next_event(0.1), PublishRefused)
            access.tick((attempt + 1) * ANSWER_SECONDS)
    assert "mosquitto_dynamic_security" in caplog.text


def test_a_role_that_somebody_changed_is_put_right_at_a_real_broker(tmp_path, mosquitto_installed):
    wanted = WantedAccess(frozenset({"hospital-a", "hospital-b"}))
    name = site_role("brain-mri", "hospital-a").name
    with SecuredBroker(tmp_path, wanted) as broker:
        with managed(broker) as manager:
            manager.settle(wanted)
            rule = {"acltype": "subscribePattern", "topic": "#", "allow": True}
            damage = [
                {"command": "addRoleACL", "rolename": name} | rule,
                {"command": "disableClient", "username": "hospital-b"},
                {"command": "removeClientRole", "username": "hospital-a", "rolename": name},
            ]
            manager.link.publish(CONTROL_TOPIC, msgspec.json.encode({"commands": damage}))
            smaller = WantedAccess(frozenset({"hospital-a"}))
            manager.settle(smaller)
            assert any(
                b"modifyRole" in command and b"addClientRole" in command for command in manager.commands
            )
            manager.settle(wanted)
        # A broker that starts again has it still.
        broker.restart()
        with managed(broker) as manager:
            manager.settle(wanted)
            assert len(manager.commands) == 1
        # The test may be root's, and its first connections only look whether there is a broker.
        ours = re.compile("should not be run as root|unexpected eof while reading")
        noticed = re.findall("^.*(?:Warning|Error|deprecated).*$", broker.log_file.read_text(), re.MULTILINE)
        assert [line for line in noticed if not ours.search(line)] == []
