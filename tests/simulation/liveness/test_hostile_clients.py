"""A running aggregator at a real Mosquitto, and a client that means harm."""

import itertools
import threading
import time

import pytest

from benchmarks.liveness.crowd import NAME, crowded_aggregator
from fedmedclip.protocol import topics
from fedmedclip.protocol.envelope import NO_IDENTITY, open_envelope, seal
from fedmedclip.protocol.link.link import Link, LinkSettings, Received
from fedmedclip.protocol.messages import Announcement, Block, HeadRequest, Plan, Status
from fedmedclip.protocol.signature import fingerprint

SITES, ROUNDS = 3, 1000
PATIENCE_SECONDS = 60.0
# On a shared machine; alone it is 1.7.
MOST_TIMES_SLOWER = 5.0


@pytest.fixture(scope="module")
def federation(tmp_path_factory, mosquitto_installed):
    folder = tmp_path_factory.mktemp("hostile")
    with crowded_aggregator(folder, SITES, ROUNDS) as federation:
        yield federation


def outsider(federation, name):
    settings = federation.crowd.link._network._settings
    link = Link(LinkSettings(host=settings.host, port=settings.port), client_id=name)
    link.start()
    return link


def seconds_of(federation, first, last):
    began = time.monotonic()
    for number in range(first, last + 1):
        federation.crowd.deliver(number)
    return time.monotonic() - began


def flooding(federation, link, site, over):
    """Publish what a member's own key has signed, much more of it than any site needs, until `over`."""
    crowd, up = federation.crowd, topics.up(NAME, site)
    key, identity = crowd.keys[site], crowd.plan.identity
    request = seal(HeadRequest(-1), up, key, identity)
    nothing = seal(Block(bytes(32), 1, bytes(2000)), up, key, identity)
    for number in itertools.count():
        if over.is_set():
            return
        if link.unfinished > 500:
            time.sleep(0.01)
        status = Status(fingerprint(key.public_key), True, 0, crowd._moment())
        sealed = seal(status, topics.status(NAME, site), key, NO_IDENTITY)
        for topic, payload in (up, request), (up, nothing), (topics.status(NAME, site), sealed):
            link.publish(topic, payload)
        link.next_event(0.0)
        if number % 100 == 0:
            link.publish(up, b"FM\x03" + bytes(100))


@pytest.mark.slow
def test_a_round_of_honest_sites_goes_on_while_a_member_floods(federation):
    seconds_of(federation, 1, 3)
    quiet = seconds_of(federation, 4, 13)
    attacker, over = outsider(federation, "attacker"), threading.Event()
    thread = threading.Thread(target=flooding, args=(federation, attacker, "site-00002", over))
    thread.start()
    try:
        time.sleep(1.0)
        flooded = seconds_of(federation, 14, 23)
        assert thread.is_alive(), "the flood ended by itself"
    finally:
        over.set()
        thread.join()
        attacker.close(timeout=0.1)
    assert flooded < MOST_TIMES_SLOWER * quiet + 1.0


def heard_by(link, seconds, wanted=()):
    """Return topic and message of what arrives, until all that is wanted has."""
    heard, until = [], time.monotonic() + seconds
    while time.monotonic() < until and not (wanted and set(wanted) <= {topic for topic, _ in heard}):
        event = link.next_event(0.1)
        if isinstance(event, Received):
            event.acknowledge()
            if event.payload:
                heard.append((event.topic, open_envelope(event.payload, event.topic).message))
    return heard


@pytest.mark.slow
def test_plan_and_head_come_back_however_often_somebody_clears_them_and_without_a_storm(federation):
    plan, head = topics.plan(NAME), topics.head(NAME)
    attacker, witness = outsider(federation, "eraser"), outsider(federation, "witness")
    witness.subscribe(plan, head)
    assert {topic for topic, _ in heard_by(witness, PATIENCE_SECONDS, (plan, head))} == {plan, head}
    until = time.monotonic() + 2.5
    while time.monotonic() < until:
        for topic in (plan, head):
            attacker.publish(topic, b"", retain=True)
        time.sleep(0.05)
    attacker.close()
    stormed = heard_by(witness, 0.2)
    assert 1 <= len(stormed) <= 8
    heard_by(witness, PATIENCE_SECONDS, (plan, head))
    newcomer = outsider(federation, "newcomer")
    newcomer.subscribe(plan, head)
    found = dict(heard_by(newcomer, PATIENCE_SECONDS, (plan, head)))
    assert isinstance(found[plan], Plan)
    assert isinstance(found[head], Announcement)
    for link in (witness, newcomer):
        link.close()
