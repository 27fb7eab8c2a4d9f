"""What a flood costs: bounded memory, disk and log, for its sender alone."""

import tracemalloc

import msgspec
import pytest

from fedmedclip.aggregator import uploads
from fedmedclip.aggregator.commands import ShowStatus, carry_out
from fedmedclip.aggregator.floods import BLOCKS_OF_NOTHING, NOT_ACCEPTED, STRANGERS
from fedmedclip.aggregator.status import status_of
from fedmedclip.protocol import topics
from fedmedclip.protocol.envelope import NO_IDENTITY, seal
from fedmedclip.protocol.messages import (
    Abstain,
    Block,
    HeadRequest,
    Join,
    Moment,
    ObjectReference,
    State,
    Status,
    Update,
)
from fedmedclip.protocol.signature import fingerprint, new_signing_key
from tests.aggregator.test_coordinator_and_members import (
    BUNDLE,
    FEDERATION,
    PLAN,
    SETTINGS,
    SITE_KEYS,
    Aggregator,
    large_update,
)
from tests.protocol.moments import a_moment

MANY = 3000


@pytest.fixture
def aggregator(tmp_path):
    aggregator = Aggregator(tmp_path)
    aggregator.join("a", "b")
    yield aggregator
    aggregator.store.close()


def sealed(message, site="a", key=None):
    status = isinstance(message, Status)
    topic = topics.status(FEDERATION, site) if status else topics.up(FEDERATION, site)
    identity = NO_IDENTITY if status else PLAN.identity
    return topic, seal(message, topic, key or SITE_KEYS[site], identity)


def stored_bytes(store):
    tables = [name for (name,) in store._database.rows("SELECT name FROM sqlite_master WHERE type = 'table'")]
    return sum(len(repr(row)) for table in tables for row in store._database.rows(f"SELECT * FROM {table}"))


def flood(aggregator, messages):
    """Receive them within one second; return the answers and the peak of memory that they cost, in bytes."""
    tracemalloc.start()
    answers = []
    for topic, payload in messages:
        answers += aggregator.coordinator.receive(topic, payload, 1.0)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return answers, held


def reference(number):
    return ObjectReference(number.to_bytes(32, "big"), 4000, 1024)


A_MARK = fingerprint(SITE_KEYS["a"].public_key)
FLOODS = {
    "joins": lambda number: Join(SITE_KEYS["a"].public_key, BUNDLE, 100, 0, "", "", a_moment(), 1),
    "statuses": lambda number: Status(A_MARK, True, number, a_moment()),
    "updates": lambda number: Update(1, 100, reference(number), number),
    "requests": lambda number: HeadRequest(-1),
    "states": lambda number: State(bytes(100)),
    "abstentions": lambda number: Abstain(1, "!" * 400),
    BLOCKS_OF_NOTHING: lambda number: Block(bytes(32), number, bytes(1000)),
}


@pytest.mark.parametrize("kind", FLOODS)
def test_a_members_flood_is_dropped_counted_and_named_once_and_nobody_else_notices(aggregator, caplog, kind):
    answers, held = flood(aggregator, (sealed(FLOODS[kind](number)) for number in range(MANY)))
    assert held < 1 << 20
    assert sum(len(repr(answer)) for answer in answers) < 1 << 18
    assert stored_bytes(aggregator.store) < 1 << 16
    assert len(caplog.messages) < 300
    assert sum("more" in line and kind in line for line in caplog.messages) == 1
    (found,) = status_of(aggregator.coordinator, 1.0).floods
    assert (found.site, found.kind) == ("a", kind)
    assert found.dropped > MANY / 4
    assert aggregator.deliver(1, "b")[0].accepted
    shown, _ = carry_out(ShowStatus(), aggregator.coordinator, 1.0)
    assert f'"kind":"{kind}"' in shown


def refused_join(number):
    key = new_signing_key()
    return sealed(Join(key.public_key, bytes(32), 100, 0, "", "", Moment(1, 0, 1), 1), f"s{number}", key)


def unable_join(number):
    key = new_signing_key()
    join = Join(key.public_key, BUNDLE, 100, 0, "!" * 64, "!" * 400, Moment(1, 0, 1), 1)
    return sealed(join, f"s{number}", key)


def unknown_status(number):
    return sealed(Status(bytes(8), True, 0, Moment(1, 0, 1)), f"s{number}", SITE_KEYS["c"])


def garbage(number):
    return topics.up(FEDERATION, f"s{number}"), b"FM\x03" + bytes(500)


def huge(number):
    return topics.status(FEDERATION, f"s{number % 3}"), b"FM\x03\x93" + bytes(1 << 16)


@pytest.mark.parametrize("invented", [refused_join, unable_join, unknown_status, garbage, huge])
def test_strangers_make_neither_store_nor_memory_nor_log_grow(aggregator, caplog, invented):
    before = stored_bytes(aggregator.store)
    messages = [invented(number) for number in range(1500)]
    answers, held = flood(aggregator, messages)
    assert stored_bytes(aggregator.store) == before
    assert held < 1 << 20
    assert len(caplog.messages) < 100
    assert len(answers) <= 30
    floods = status_of(aggregator.coordinator, 1.0).floods
    assert {flood.site for flood in floods} == {STRANGERS}
    assert sum(flood.dropped for flood in floods) > 1000
    (answer,) = aggregator.join("c", now=1.0)  # whoever may join still does
    assert answer.accepted


def test_what_others_send_in_a_members_name_takes_nothing_of_its_share(aggregator, caplog):
    stranger = new_signing_key()
    forged = [sealed(Abstain(1, "no"), "a", stranger) for _ in range(500)]
    flood(aggregator, forged)
    assert aggregator.coordinator.refused_messages["a"] == 500
    assert len(caplog.messages) < 30
    assert [(found.kind, found.site) for found in status_of(aggregator.coordinator, 1.0).floods] == [
        (NOT_ACCEPTED, "a")
    ]
    assert [receipt.accepted for receipt in aggregator.deliver(1, "a", now=1.0)] == [True]


def test_above_the_largest_number_of_sites_nobody_is_admitted(tmp_path):
    aggregator = Aggregator(tmp_path, settings=msgspec.structs.replace(SETTINGS, maximum_sites=2))
    aggregator.join("a", "b")
    (answer,) = aggregator.join("c")
    assert answer.reason == "this federation has 2 sites already, as many as maximum_sites allows"
    assert [answer.accepted for answer in aggregator.join("a")] == [True]
    aggregator.store.close()


def test_unfinished_updates_of_many_members_take_bounded_memory(aggregator, monkeypatch):
    update, blocks = large_update(1)
    monkeypatch.setattr(uploads, "MOST_UNFINISHED_BYTES", update.payload.size)
    aggregator.hear("a", update)
    aggregator.hear("a", blocks[0], 5.0)
    aggregator.hear("b", update, 10.0)
    assert set(aggregator.store.uploads()) == {"b"}
    aggregator.hear("a", update, 20.0)
    assert set(aggregator.store.uploads()) == {"a"}
    for block in blocks:
        answer = aggregator.hear("a", block, 21.0)
    assert answer[0].accepted
