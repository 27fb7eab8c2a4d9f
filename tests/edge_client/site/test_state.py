import pytest

from fedmedclip.edge_client.site.state import OutgoingUpdate, SiteState
from fedmedclip.protocol.messages import Plan

PLAN = Plan(
    bytes(16), bytes(32), "fedmedclip", bytes(32), 8, 3, 1, "lowrank", "lowrank", {},
    1, 1, False, 1000.0, None,
)  # fmt: skip


@pytest.fixture
def state(tmp_path):
    state = SiteState(tmp_path / "site.db")
    state.begin(PLAN, b"shared", b"private")
    yield state
    state.close()


def what_the_encoder_keeps(state):
    stored = state.load()
    return stored.residual, stored.codec_memory


def test_a_site_begins_without_residual_and_memory(state):
    assert what_the_encoder_keeps(state) == (None, b"")


def test_a_refused_update_restores_residual_and_memory_of_before(state):
    state.store_update(OutgoingUpdate(1, 10, b"update"), b"private1", b"residual1", b"memory1")
    assert what_the_encoder_keeps(state) == (b"residual1", b"memory1")
    state.settle(1, accepted=False)
    assert what_the_encoder_keeps(state) == (None, b"")
    assert state.outgoing_update() is None
    assert state.load().private_head == b"private1"
    state.store_update(OutgoingUpdate(2, 10, b"update"), b"private2", b"residual2", b"memory2")
    state.settle(2, accepted=True)
    state.store_update(OutgoingUpdate(3, 10, b"update"), b"private3", b"residual3", b"memory3")
    state.settle(3, accepted=False)
    assert what_the_encoder_keeps(state) == (b"residual2", b"memory2")


def test_a_receipt_of_another_round_changes_nothing(state):
    state.store_update(OutgoingUpdate(2, 10, b"update"), b"private", b"residual", b"memory")
    state.settle(1, accepted=False)
    assert what_the_encoder_keeps(state) == (b"residual", b"memory")
    assert state.outgoing_update() == OutgoingUpdate(2, 10, b"update")
