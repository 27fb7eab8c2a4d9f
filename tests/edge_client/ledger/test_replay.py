"""The digests of the ledger are those of what the codec and the key make again, or `replay` says so."""

import msgspec
import numpy as np
import pytest

from fedmedclip.edge_client.ledger.listing import line_for_people
from fedmedclip.edge_client.ledger.message_ledger import MessageLedger
from fedmedclip.edge_client.ledger.notes import note_for_people, note_of_sent, said_in
from fedmedclip.edge_client.ledger.replay import Signer, replay, replay_lines
from fedmedclip.edge_client.ledger.segments import read_entries
from fedmedclip.edge_client.ledger.sources import UpdateSource
from fedmedclip.edge_client.site.post import Post
from fedmedclip.edge_client.site.state import OutgoingUpdate, SiteState
from fedmedclip.protocol import topics
from fedmedclip.protocol.codecs import delta_codec_named
from fedmedclip.protocol.codecs.error_feedback import compress_within
from fedmedclip.protocol.envelope import seal
from fedmedclip.protocol.heads.shared_heads import shared_head_specification
from fedmedclip.protocol.messages import (
    Abstain,
    BlockRequest,
    HeadRequest,
    Join,
    MaskKeys,
    Moment,
    Plan,
    PrivacySpent,
    Status,
    Update,
)
from fedmedclip.protocol.objects import blocks_of, refer_to
from fedmedclip.protocol.signature import fingerprint, new_signing_key

KEY = new_signing_key()
SIZE, CODEC = 8, "lowrank"
PLAN = Plan(
    b"i" * 16, bytes(32), "fedmedclip", bytes(32), SIZE, 9, 1, CODEC, CODEC, {}, 77, 1, False, 2.0, None
)  # fmt: skip
SPENT = PrivacySpent(1.0, 1.0, 8.0, 1e-5)


class Box:
    """A site that sends and records, with made-up training."""

    def __init__(self, folder, replay_rounds=3):
        self.folder = folder / "ledger"
        self.state = SiteState(folder / "site.db", durable=False, replay_rounds=replay_rounds)
        self.specification = shared_head_specification("fedmedclip", SIZE, 3)
        zeros = bytes(4 * self.specification.size)
        self.state.begin(PLAN, zeros, b"")
        self.ledger = MessageLedger(self.folder, self.state.ledger_end)
        self.post = Post("trial", "site-a", KEY, self.ledger)

    def random_head(self, seed):
        generator = np.random.default_rng(seed)
        return {
            tensor.name: generator.normal(size=tensor.shape).astype(np.float32)
            for tensor in self.specification.tensors
        }

    def train(self, round_number, software="1.0", spent=None):
        stored = self.state.load()
        delta = self.random_head(round_number)
        residual = None if stored.residual is None else self.specification.from_bytes(stored.residual)
        made = compress_within(
            2.0, delta_codec_named(CODEC), delta, residual, stored.codec_memory, self.specification
        )
        source = UpdateSource(
            PLAN.number, PLAN.identity, round_number, "fedmedclip", SIZE, 3, CODEC, 2.0, 50, spent,
            self.specification.to_bytes(delta), stored.residual, stored.codec_memory, software,
        )  # fmt: skip
        residual = self.specification.to_bytes(made.residual)
        self.state.store_update(
            OutgoingUpdate(round_number, 50, made.encoded), b"", residual, made.memory, source=source
        )
        return made.encoded

    def send(self, *messages):
        return self.post.up(messages, PLAN.identity, PLAN.number)

    def deliver(self, round_number, encoded, attempt=0, limit=1 << 17, spent=None):
        payload = refer_to(encoded, limit)
        self.send(Update(round_number, 50, payload, attempt, spent), *blocks_of(encoded, payload))
        self.state.settle(round_number, True)

    def replay(self, key=KEY):
        signer = Signer("trial", "site-a", key, self.state.plan_identities())
        return replay(lambda: read_entries(self.folder), self.state.update_sources, signer)


@pytest.fixture
def box(tmp_path):
    box = Box(tmp_path)
    yield box
    box.ledger.close()
    box.state.close()


def test_updates_come_out_the_same_round_after_round(box):
    for round_number in (1, 2, 3):
        box.deliver(round_number, box.train(round_number, spent=SPENT), spent=SPENT)
    done = box.replay()
    assert [update.outcome for update in done.updates] == ["same"] * 3
    assert not done.differs


def test_an_update_in_blocks_comes_out_the_same_whatever_size_they_had(box, monkeypatch):
    monkeypatch.setattr("fedmedclip.protocol.objects.OVERHEAD_BYTES", 0)
    encoded = box.train(1)
    large = encoded * (3000 // len(encoded) + 1)
    monkeypatch.setattr(UpdateSource, "encoded", lambda self: large)
    box.deliver(1, large, limit=1024)
    box.deliver(1, large, limit=2048)
    (update,) = box.replay().updates
    blocks = -(-len(large) // 1024) + -(-len(large) // 2048)
    assert (update.outcome, update.messages) == ("same", 2 + blocks)
    # Of the state's source another update is made now than was sent.
    monkeypatch.undo()
    (update,) = box.replay().updates
    assert update.outcome == "differs"


def test_another_update_than_was_recorded_differs(box):
    box.deliver(1, box.train(1) + b"\0")
    box.deliver(2, box.train(2))
    done = box.replay()
    assert [update.outcome for update in done.updates] == ["differs", "same"]
    assert done.differs
    assert "made by fedmedclip 1.0" in replay_lines(done)[0]
    assert box.replay(new_signing_key()).updates[1].outcome == "differs"


def test_of_older_updates_it_says_that_nothing_is_kept(box):
    for round_number in range(1, 6):
        box.deliver(round_number, box.train(round_number))
    assert [update.outcome for update in box.replay().updates] == ["not kept"] * 2 + ["same"] * 3


def test_a_round_that_is_trained_again_has_an_update_for_each_attempt(box):
    box.send(Update(1, 50, box.train(1), 0, None))
    box.state.settle(1, False, again=True)
    box.deliver(1, box.train(1, software="2.0"), attempt=1)
    assert [(update.attempt, update.outcome) for update in box.replay().updates] == [(0, "same"), (1, "same")]


def test_damage_to_what_is_kept_is_said(box):
    box.deliver(1, box.train(1))
    with box.state._database.transaction() as database:
        database.execute("UPDATE update_sources SET source = x'00'")
    (update,) = box.replay().updates
    assert update.outcome == "cannot be"
    assert "damaged" in update.words


def test_an_update_of_a_method_that_is_gone_cannot_be_made(box, monkeypatch):
    box.deliver(1, box.train(1))
    found = box.state.update_sources.find(77, 1, 0)
    gone = msgspec.structs.replace(found, method="gone")
    monkeypatch.setattr(box.state.update_sources, "find", lambda *_: gone)
    assert box.replay().updates[0].outcome == "cannot be"


MOMENT = Moment(5, 6, 7)
SMALL = [
    Join(KEY.public_key, bytes(32), 50, 3, "1.0", 'no: "quoted"\n', MOMENT, 1),
    Abstain(3, "too few images: \u00e9"),
    HeadRequest(-1),
    BlockRequest(bytes(32), [1, 2, 300]),
]


def test_small_messages_stand_in_their_entries_and_come_out_the_same(box):
    box.send(*SMALL)
    box.post.status(Status(fingerprint(KEY.public_key), True, 3, MOMENT))
    box.post.last_will(MOMENT)
    done = box.replay()
    assert {kind.kind: kind.same for kind in done.others} == {
        "Join": 1, "Abstain": 1, "HeadRequest": 1, "BlockRequest": 1, "Status": 2,
    }  # fmt: skip
    assert not done.differs
    assert box.replay(new_signing_key()).differs


def test_a_message_of_a_run_that_is_declined_comes_out_by_the_plan_that_came(box):
    declined = msgspec.structs.replace(PLAN, identity=b"d" * 16)
    box.ledger.record("in", "t", b"", "Plan", f"run 78 revision 1 identity {declined.identity.hex()}")
    box.post.up([SMALL[0]], declined.identity, 78)
    assert box.replay().others[0].same == 1


def test_a_changed_note_differs(box):
    payload = seal(HeadRequest(4), topics.up("trial", "site-a"), KEY, PLAN.identity)
    note = note_of_sent(HeadRequest(5), 77)
    entry = box.ledger.record("out", topics.up("trial", "site-a"), payload, "HeadRequest", note)
    assert box.replay().others[0].differing == [entry.number]


def test_of_masked_sums_it_says_why_nothing_is_made_again(box):
    box.send(MaskKeys(1, bytes(32), bytes(32), False))
    (kind,) = box.replay().others
    assert (kind.kind, kind.not_made, kind.same) == ("MaskKeys", 1, 0)
    assert "live in memory only" in kind.words


@pytest.mark.parametrize("message", SMALL)
def test_a_note_says_all_and_is_read_by_people(message):
    note = note_of_sent(message, 1)
    assert said_in(note) == message
    assert "b'" not in note_for_people(note)


def test_a_line_for_people_says_what_a_last_will_is(box):
    box.post.last_will(Moment(5, 6, (1 << 32) - 1))
    (*_, entry) = read_entries(box.folder)
    line = line_for_people(entry)
    assert "-> Status" in line
    assert "online no, version -1, moment 5.6.last word" in line


def test_simulations_keep_no_sources(tmp_path):
    box = Box(tmp_path, replay_rounds=0)
    box.deliver(1, box.train(1))
    assert box.replay().updates[0].outcome == "not kept"
