"""How a round makes the next version, which past versions are to be had, and what catches a site up."""

import numpy as np
import pytest

from fedmedclip.aggregator.aggregation import Weighing
from fedmedclip.aggregator.global_head import GlobalHead
from fedmedclip.aggregator.rules.names import BUILT_IN, rule_named
from fedmedclip.aggregator.rules.rule import Aggregated, Rule
from fedmedclip.aggregator.store import Store, StoredHead, StoredVersion
from fedmedclip.aggregator.stored_heads import head_at
from fedmedclip.protocol.codecs import codec_named, decode_head, encode_head
from fedmedclip.protocol.errors import AggregationError, InvalidInputError, MessageError, StorageError
from fedmedclip.protocol.heads.head import HeadSpecification, TensorSpecification, head_digest
from fedmedclip.protocol.messages import Announcement, Plan, Snapshot

SPECIFICATION = HeadSpecification((TensorSpecification("weight", (16, 48), initial_bound=1.0),))
FIRST = SPECIFICATION.initial(0)
PLAN = Plan(
    bytes(16), bytes(32), "fedmedclip", bytes(32), 8, 4, 1, "int8", "int8", {}, 1, 1, False, 1000.0, None,
)  # fmt: skip
LARGE, SMALL = 1 << 17, 1024 + 128


class Rounds:
    """A global head, and sites that deliver what a test wants."""

    rule = rule_named("weighted_mean")

    def __init__(self, folder, codec="int8", limit=LARGE):
        self.store = Store(folder / "aggregator.db", durable=False)
        self.store.begin(PLAN, SPECIFICATION.to_bytes(FIRST), head_digest(FIRST))
        self.codec, self.limit = codec, limit
        self.heads = [FIRST]
        self.open()

    def open(self):
        self.head = GlobalHead(self.store, SPECIFICATION, self.codec, PLAN.rounds, self.limit, self.rule)
        return self.head

    def newest(self):
        return SPECIFICATION.from_bytes(self.store.head().head)

    def play(self, *deltas, samples=(1, 1, 1), weighting="samples"):
        """Make the next version of one delta per site; return what it added to the head."""
        round_number, before = self.head.version + 1, self.newest()
        sites = "abc"[: len(deltas)]
        for site, delta, count in zip(sites, deltas, samples, strict=False):
            payload = encode_head(codec_named("lossless"), {"weight": delta}, SPECIFICATION).data
            self.store.add_update(round_number, site, count, payload)
        self.head.aggregate(round_number, Weighing(weighting))
        self.heads.append(self.newest())
        return self.heads[-1]["weight"] - before["weight"]

    def play_to(self, version):
        while self.head.version < version:
            self.play(SPECIFICATION.initial(self.head.version + 1)["weight"])
        return self.head

    def head_at(self, version):
        return head_at(self.store, SPECIFICATION, version)

    def damage(self, statement):
        with self.store._database.transaction() as database:
            database.execute(statement)


@pytest.fixture
def rounds(tmp_path):
    rounds = Rounds(tmp_path)
    yield rounds
    rounds.store.close()


def full(value):
    return np.full((16, 48), value, np.float32)


@pytest.mark.parametrize(("weighting", "mean"), [("samples", 0.75), ("equal", 0.5)])
def test_updates_weigh_as_the_federation_says(tmp_path, weighting, mean):
    rounds = Rounds(tmp_path, codec="lossless")
    moved = rounds.play(full(1.0), full(0.0), samples=(300, 100), weighting=weighting)
    np.testing.assert_allclose(moved, full(mean), atol=1e-6)


@pytest.mark.parametrize(("weighting", "weights"), [("samples", [300.0, 100.0]), ("equal", [1.0, 1.0])])
def test_a_rule_is_told_the_weights(rounds, monkeypatch, weighting, weights):
    told = []

    def first(updates, specification, state):
        told.extend(update.weight for update in updates)
        return Aggregated(updates[0].delta())

    monkeypatch.setitem(BUILT_IN, "first", Rule(lambda name: first))
    rounds.head.rule = rule_named("first")
    rounds.play(full(1.0), full(0.0), samples=(300, 100), weighting=weighting)
    assert told == weights


def test_what_a_broadcast_leaves_out_is_sent_in_the_next(tmp_path):
    rounds = Rounds(tmp_path, codec="int2")
    delta = SPECIFICATION.initial(5)["weight"]
    first = rounds.play(delta)
    owed = SPECIFICATION.from_bytes(rounds.store.head().residual)["weight"]
    np.testing.assert_allclose(first + owed, delta, atol=1e-5)
    assert np.abs(owed).max() > 0.01
    second = rounds.play(full(0.0))
    still = SPECIFICATION.from_bytes(rounds.store.head().residual)["weight"]
    np.testing.assert_allclose(second + still, owed, atol=1e-5)


def test_a_broadcast_that_leaves_out_more_and_more_is_complained_of(tmp_path, caplog):
    rounds = Rounds(tmp_path, codec="topk:share=0.01")
    for _ in range(8):
        rounds.play(full(1.0))
    assert "what the broadcast leaves out has grown" in caplog.text


def test_a_sum_that_is_no_number_makes_no_version(tmp_path):
    rounds = Rounds(tmp_path, codec="lossless")
    rounds.head.adopt(1, {"weight": full(3e38)})
    with np.errstate(over="ignore"), pytest.raises(AggregationError, match="infinite"):
        rounds.play(full(3e38))
    assert rounds.head.version == rounds.open().version == 1


def test_the_last_round_finishes_the_run_and_its_announcement_says_so(rounds):
    assert rounds.head.announcement() == Announcement(0, head_digest(FIRST), False, None, None)
    for version in (1, 2, 3):
        announced = rounds.play_to(version).announcement()
        assert (announced.version, announced.finished, rounds.head.finished) == (version, False, False)
    announced = rounds.play_to(4).announcement()
    assert announced.finished
    assert rounds.head.finished
    assert announced.head_digest == rounds.head.digest == head_digest(rounds.heads[4])


def test_deltas_lead_a_site_on_and_a_snapshot_one_whose_version_is_not_known(rounds):
    rounds.play_to(2)
    assert rounds.head.catch_up(2) == [rounds.head.announcement()]
    assert [answer.version for answer in rounds.head.catch_up(1)] == [2]
    assert [answer.version for answer in rounds.head.catch_up(0)] == [1, 2]
    for version in (-1, 3, 1000):
        (snapshot,) = rounds.head.catch_up(version)
        assert (snapshot.version, snapshot.finished) == (2, False)
        assert snapshot.head_digest == rounds.head.digest
        assert head_digest(decode_head(snapshot.payload, SPECIFICATION)) == rounds.head.digest
    (last,) = rounds.play_to(4).catch_up(-1)
    assert (last.version, last.finished) == (4, True)
    assert head_digest(decode_head(last.payload, SPECIFICATION)) == rounds.head.digest


@pytest.mark.parametrize(("more", "kind"), [(0, Announcement), (1, Snapshot)])
def test_deltas_are_sent_unless_a_snapshot_is_smaller(rounds, more, kind):
    whole = len(rounds.head.catch_up(-1)[0].payload)
    newest = StoredHead(SPECIFICATION.to_bytes(FIRST), None, b"")
    for version, size in ((1, 1000), (2, whole - 1000 + more)):
        rounds.store.advance(StoredVersion(version, head_digest(FIRST), bytes(size)), newest)
    assert isinstance(rounds.open().catch_up(0)[0], kind)


def test_a_delta_that_is_gone_or_never_was_makes_it_a_snapshot(rounds):
    rounds.play_to(1)
    rounds.head.adopt(2, SPECIFICATION.initial(9))
    assert rounds.head.announcement().payload is None
    rounds.play_to(3)
    assert isinstance(rounds.head.catch_up(1)[0], Snapshot)
    assert isinstance(rounds.head.catch_up(0)[0], Snapshot)
    assert isinstance(rounds.head.catch_up(2)[0], Announcement)
    rounds.play_to(4)
    rounds.store.forget_before(4)
    assert isinstance(rounds.head.catch_up(2)[0], Snapshot)
    assert isinstance(rounds.head.catch_up(3)[0], Announcement)


def test_large_deltas_and_snapshots_travel_in_blocks(tmp_path):
    rounds = Rounds(tmp_path, codec="lossless", limit=SMALL)
    head = rounds.play_to(1)
    (snapshot,) = head.catch_up(-1)
    for carrier in (head.announcement(), snapshot):
        blocks = head.blocks_behind(carrier)
        assert len(blocks) == 3
        assert head.blocks(carrier.payload.digest, [2, 0]) == [blocks[0], blocks[2]]
        encoded = b"".join(block.data for block in blocks)
        moved = decode_head(encoded, SPECIFICATION)["weight"]
        before = FIRST["weight"] if isinstance(carrier, Announcement) else 0
        np.testing.assert_array_equal(before + moved, rounds.newest()["weight"])
    head.limit_messages(LARGE)
    assert head.blocks_behind(head.announcement()) == []
    with pytest.raises(MessageError, match="no object has the digest"):
        head.blocks(snapshot.payload.digest)


def test_blocks_of_an_object_that_is_not_here_are_refused(tmp_path):
    head = Rounds(tmp_path, limit=SMALL).play_to(1)
    with pytest.raises(MessageError, match="no object has the digest 0000000000000000"):
        head.blocks(bytes(32))


def test_every_past_version_can_be_made_again_bit_by_bit(rounds):
    rounds.play_to(3)
    for version, expected in enumerate(rounds.heads):
        assert head_digest(rounds.head_at(version)) == head_digest(expected)
    with pytest.raises(InvalidInputError, match="version 4 is not here; the newest is 3"):
        rounds.head_at(4)


@pytest.mark.parametrize(
    "damaged",
    ["(SELECT payload FROM versions WHERE version = 1)", "x'00'", "x'02ff'", "substr(payload, 2)", "x''"],
)
def test_behind_a_damaged_delta_no_version_is_to_be_had_and_all_goes_on(rounds, damaged):
    rounds.play_to(3)
    rounds.damage(f"UPDATE versions SET payload = {damaged} WHERE version = 2")
    assert head_digest(rounds.head_at(1)) == head_digest(rounds.heads[1])
    for version in (2, 3):
        with pytest.raises(
            InvalidInputError, match=rf"{version} cannot be made again: .* 1 to 2 is not here"
        ):
            rounds.head_at(version)
    rounds.head.keep_at_most(1)
    assert head_digest(rounds.head_at(3)) == head_digest(rounds.heads[3])


@pytest.mark.parametrize("damaged", ["x''", "x'00'"])
def test_a_head_whose_deltas_are_damaged_too_is_named(rounds, damaged):
    rounds.play_to(3)
    rounds.damage(f"UPDATE versions SET payload = {damaged} WHERE version = 2")
    rounds.damage("UPDATE federation SET head = zeroblob(length(head))")
    with pytest.raises(StorageError, match=r"the global head is damaged .*; restore a backup"):
        rounds.open()


def test_a_version_is_not_made_of_deltas_between_which_one_is_missing(rounds):
    rounds.play_to(3)
    rounds.damage("DELETE FROM versions WHERE version = 2")
    with pytest.raises(InvalidInputError, match=r"version 3 cannot be made again: .* from version 1 to 2"):
        rounds.head_at(3)


def test_a_version_that_was_taken_back_is_a_new_beginning(rounds):
    rounds.play_to(1)
    taken = SPECIFICATION.initial(9)
    rounds.head.adopt(3, taken)
    assert (rounds.head.version, rounds.head.digest) == (3, head_digest(taken))
    rounds.play_to(4)
    assert head_digest(rounds.head_at(3)) == head_digest(taken)
    assert head_digest(rounds.head_at(4)) == head_digest(rounds.newest())
    assert head_digest(rounds.head_at(1)) == head_digest(rounds.heads[1])
    with pytest.raises(InvalidInputError, match="version 2 cannot be made again"):
        rounds.head_at(2)


@pytest.mark.parametrize(("past", "made"), [(0, 4), (3, 4), (7, 8)])
def test_a_rollback_is_a_new_version_above_all_that_anybody_holds(rounds, past, made):
    rounds.play_to(3)
    assert rounds.head.roll_back(1, past) == made
    assert (rounds.head.version, rounds.head.digest) == (made, head_digest(rounds.heads[1]))
    assert rounds.open().version == made
    with pytest.raises(InvalidInputError, match="is not here"):
        rounds.head.roll_back(made + 1, 0)


def test_deltas_that_fit_are_kept_and_otherwise_about_half_of_them(rounds):
    rounds.play_to(4)
    sizes = [len(stored.payload) for stored in rounds.store.versions_after(0)]
    rounds.head.keep_at_most(sum(sizes))
    assert [stored.version for stored in rounds.store.versions_after(0)] == [1, 2, 3, 4]
    rounds.head.keep_at_most(sum(sizes) - 1)
    kept = [stored.version for stored in rounds.store.versions_after(0)]
    assert kept == [4]
    rounds.play_to(5)
    for version in (4, 5):
        assert head_digest(rounds.head_at(version)) == head_digest(rounds.heads[version])
    with pytest.raises(InvalidInputError, match="version 3 is not here"):
        rounds.head_at(3)


def test_as_many_of_the_newest_deltas_are_kept_as_fit_into_half(rounds):
    rounds.play_to(5)
    fourth, fifth = (len(stored.payload) for stored in rounds.store.versions_after(3))
    rounds.head.keep_at_most(2 * (fourth + fifth))
    assert [stored.version for stored in rounds.store.versions_after(0)] == [4, 5]
    assert head_digest(rounds.head_at(4)) == head_digest(rounds.heads[4])


def test_damaged_deltas_are_dropped_for_the_newest_head(rounds):
    rounds.play_to(4)
    rounds.damage("UPDATE whole_heads SET head = x'00'")
    rounds.head.keep_at_most(1)
    assert head_digest(rounds.head_at(4)) == head_digest(rounds.heads[4])
    assert rounds.head.catch_up(3)[0].version == 4


def test_a_damaged_head_is_made_again_of_its_deltas(rounds):
    rounds.play_to(3)
    rounds.damage("UPDATE federation SET head = zeroblob(length(head))")
    assert rounds.open().digest == head_digest(rounds.heads[3])
    assert head_digest(rounds.newest()) == head_digest(rounds.heads[3])
