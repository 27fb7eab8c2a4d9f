"""What a site keeps of the aggregator's signed messages, and shows of them."""

import pytest

from fedmedclip.edge_client.site.proof import Proof
from fedmedclip.edge_client.site.state import Sealed, SiteState
from fedmedclip.protocol.heads.evidence import Evidence, decode_evidence
from fedmedclip.protocol.messages import BlockRequest, State
from tests.edge_client.site.conftest import PLAN

SMALL, LARGE = 1024 + 128, 1 << 17


@pytest.fixture
def state(tmp_path):
    state = SiteState(tmp_path / "site.db")
    state.begin(PLAN, b"shared", b"private", sealed_plan=b"sealed plan")
    yield state
    state.close()


@pytest.fixture
def proof(state):
    return Proof(state)


def carrier(version):
    return Sealed("topic", b"carrier %d" % version)


def test_the_carriers_of_the_newest_versions_are_kept(proof):
    for version in (1, 5, 3, 2, 4):
        proof.keep(version, carrier(version))
    assert [version for version in range(7) if proof.carrier(version)] == [2, 3, 4, 5]
    assert proof.carrier(3) == carrier(3)
    proof.begin_run()
    assert proof.carrier(3) is None


def test_a_proof_is_plan_carrier_and_head(state, proof):
    state.install(1, b"head", carrier(1))
    (shown,) = proof.show(1, LARGE)
    assert decode_evidence(shown.payload) == Evidence(b"sealed plan", "topic", b"carrier 1", b"head")


def test_a_large_proof_travels_in_blocks_which_may_be_asked_for_again(state, proof):
    head = bytes(range(256)) * 10
    state.install(1, head, carrier(1))
    shown, *blocks = proof.show(1, SMALL)
    assert isinstance(shown, State)
    assert len(blocks) == 3
    assert decode_evidence(b"".join(block.data for block in blocks)).head == head
    digest = shown.payload.digest
    assert proof.blocks(BlockRequest(digest, [1]), SMALL) == [blocks[1]]
    assert proof.blocks(BlockRequest(bytes(32), [1]), SMALL) == []


def test_of_a_version_whose_announcement_is_not_kept_the_plan_alone_is_proved(state, proof):
    state.install(1, b"head")
    (shown,) = proof.show(1, LARGE)
    assert decode_evidence(shown.payload) == Evidence(b"sealed plan", "", b"", b"")


def test_nothing_is_proved_where_no_signed_plan_is_kept(state, proof, caplog):
    state.revise(state.load().plan, b"")
    assert proof.show(1, LARGE) == []
    assert "asks for version 1, whose plan is not kept here" in caplog.text
    assert proof.blocks(BlockRequest(bytes(32), [0]), LARGE) == []
