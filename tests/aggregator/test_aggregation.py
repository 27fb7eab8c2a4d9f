"""What a rule keeps from round to round: with the head, in one transaction, and never in the way."""

import sqlite3

import numpy as np
import pytest

from fedmedclip.aggregator.aggregation import Weighing, decode_state, encode_state
from fedmedclip.aggregator.global_head import GlobalHead
from fedmedclip.aggregator.rules.names import BUILT_IN, rule_named
from fedmedclip.aggregator.rules.rule import Aggregated, Rule
from fedmedclip.aggregator.store import Store, StoredHead
from fedmedclip.protocol.codecs import codec_named, encode_head
from fedmedclip.protocol.heads.head import HeadSpecification, TensorSpecification, head_digest
from tests.aggregator.test_store import PLAN

SPECIFICATION = HeadSpecification((TensorSpecification("weight", (20, 30), initial_bound=0.1),))
START = SPECIFICATION.initial(0)
KEEPING = ["centred_clipping", "fedavgm", "fedadam", "fedyogi"]


def opened(folder, rule):
    store = Store(folder / "aggregator.db", durable=False)
    if store.plan() is None:
        store.begin(PLAN, SPECIFICATION.to_bytes(START), head_digest(START))
    return GlobalHead(store, SPECIFICATION, "lossless", 10, 1 << 17, rule_named(rule))


def encoded(weight):
    return encode_head(codec_named("lossless"), {"weight": weight}, SPECIFICATION).data


def deliver(head, round_number, sites="abcd", scale=1.0, seed=None):
    first = 100 * round_number if seed is None else seed
    for place, site in enumerate(sites):
        weight = np.float32(scale) * SPECIFICATION.initial(first + place)["weight"]
        head._store.add_update(round_number, site, 100, encoded(weight))


def play(head, *rounds):
    for number in rounds:
        deliver(head, number)
        head.aggregate(number)


@pytest.mark.parametrize("rule", [*KEEPING, "clipped_mean", "trimmed_mean"])
def test_a_restart_between_rounds_changes_no_bit(tmp_path, rule):
    (tmp_path / "through").mkdir()
    through = opened(tmp_path / "through", rule)
    play(through, 1, 2, 3)
    for number in (1, 2, 3):
        head = opened(tmp_path, rule)
        play(head, number)
        head._store.close()
    assert opened(tmp_path, rule).digest == through.digest


@pytest.mark.parametrize("rule", KEEPING)
def test_what_is_kept_is_used_and_a_rollback_begins_anew(tmp_path, rule):
    head = opened(tmp_path, rule)
    play(head, 1)
    kept = decode_state(head._store.aggregation().state)
    assert kept
    play(head, 2)
    again = head.digest
    head.roll_back(1, 0)
    assert head._store.aggregation() is None
    assert head.remarks() == (0, ())
    # The same updates from the same head, but without what the rule kept of round 1.
    for number in (4,):
        for site, delta in zip("abcd", range(4), strict=True):
            encoded = encode_head(
                codec_named("lossless"), SPECIFICATION.initial(200 + delta), SPECIFICATION
            ).data
            head._store.add_update(number, site, 100, encoded)
    head.aggregate(4)
    assert head.digest != again


def test_a_version_that_was_taken_back_and_another_rule_begin_anew(tmp_path, caplog):
    head = opened(tmp_path, "fedadam")
    play(head, 1)
    head.adopt(5, SPECIFICATION.initial(9))
    assert head._store.aggregation() is None
    play(head, 6)
    assert head._store.aggregation().rule == "fedadam"
    with caplog.at_level("INFO"):
        head.rule = rule_named("centred_clipping")
        play(head, 7)
    assert "aggregation rule centred_clipping begins anew; fedadam made the version before" in caplog.text


@pytest.mark.parametrize("damage", ["state = x'00'", "rule = 'fedyogi'", "remarks = x'7b'", "checksum = x''"])
def test_what_is_kept_and_damaged_is_dropped_and_the_round_goes_on(tmp_path, damage):
    head = opened(tmp_path, "fedadam")
    play(head, 1)
    with head._store._database.transaction() as database:
        database.execute(f"UPDATE aggregation SET {damage}")
    assert head.remarks() == (0, ())
    play(head, 2)
    assert head.version == 2


def test_a_rule_that_fails_changes_nothing(tmp_path, monkeypatch):
    head = opened(tmp_path, "fedadam")
    play(head, 1)
    before = head._store.aggregation(), head.digest

    def broken(updates, specification, state):
        raise ZeroDivisionError

    monkeypatch.setitem(BUILT_IN, "broken", Rule(lambda name: broken))
    head.rule = rule_named("broken")
    deliver(head, 2)
    with pytest.raises(ZeroDivisionError):
        head.aggregate(2)
    assert (head._store.aggregation(), head.digest) == before
    assert len(head._store.stored_updates()) == 4


def test_whom_a_rule_clipped_is_logged_and_kept(tmp_path, caplog):
    head = opened(tmp_path, "clipped_mean")
    deliver(head, 1, "abc")
    deliver(head, 1, "d", scale=50.0)
    with caplog.at_level("INFO"):
        head.aggregate(1)
    number, remarks = opened(tmp_path, "clipped_mean").remarks()
    assert number == 1
    assert {(remark.site, remark.fate) for remark in remarks} >= {("d", "clipped")}
    assert "round 1, rule clipped_mean: " in caplog.text
    assert "d clipped: its norm is " in caplog.text


def test_a_site_counts_once_however_many_late_updates_it_has(tmp_path, monkeypatch):
    seen = []

    def watch(updates, specification, state):
        seen.extend((update.site, update.weight, update.delta()["weight"][0, 0]) for update in updates)
        return Aggregated(updates[0].delta())

    monkeypatch.setitem(BUILT_IN, "watch", Rule(lambda name: watch))
    head = opened(tmp_path, "watch")
    play(head, 1, 2)
    seen.clear()
    one = encoded(np.ones((20, 30), np.float32))
    for site, number, samples in (("a", 2, 10), ("a", 3, 30), ("b", 3, 100), ("c", 3, 100)):
        head._store.add_update(number, site, samples, one)
    head.aggregate(3, Weighing(most_samples={"b": 50}.get))
    late = 1 / np.sqrt(2)
    assert seen == [("a", 40.0, pytest.approx((10 * late + 30) / 40)), ("b", 50.0, 1.0), ("c", 90.0, 1.0)]


def test_state_is_the_same_after_it_was_stored():
    state = {
        "b": np.arange(6, dtype=np.float32).reshape(2, 3),
        "a": np.float64([[0.1]]),
        "none": np.zeros((0, 2)),
    }
    found = decode_state(encode_state(state))
    assert set(found) == set(state)
    for name, array in state.items():
        assert found[name].dtype == array.dtype
        assert np.array_equal(found[name], array)
        assert found[name].shape == array.shape


def test_a_store_of_before_rules_kept_anything_goes_on(tmp_path):
    head = opened(tmp_path, "fedadam")
    play(head, 1)
    head._store.close()
    connection = sqlite3.connect(tmp_path / "aggregator.db")
    later = "".join(
        f"ALTER TABLE sites DROP COLUMN {name};" for name in ("session", "connection", "sequence", "privacy")
    )
    connection.executescript(
        f"DROP TABLE aggregation; DROP TABLE quarantine; {later} PRAGMA user_version = 3"
    )
    connection.close()
    head = opened(tmp_path, "fedadam")
    assert head._store.quarantined() == {}
    assert head.remarks() == (0, ())
    play(head, 2)
    assert head.version == 2
    assert head._store.aggregation().round_number == 2


def test_a_head_that_is_made_again_from_its_deltas_forgets_what_the_rule_kept(tmp_path):
    head = opened(tmp_path, "fedadam")
    play(head, 1)
    head._store.advance(head._newest, StoredHead(b"", None, b""))
    with head._store._database.transaction() as database:
        database.execute("UPDATE federation SET head = zeroblob(4)")
    head = opened(tmp_path, "fedadam")
    play(head, 2)
    assert head.version == 2
