import pytest

from fedmedclip.edge_client.site.state import SiteState
from fedmedclip.protocol.messages import Plan

PLAN = Plan(
    bytes(16), bytes(32), "fedmedclip", bytes(32), 8, 3, 1, "lowrank", "lowrank", {},
    1, 1, False, 1000.0, None,
)  # fmt: skip


@pytest.fixture
def state(tmp_path):
    """The state of a site whose run has begun."""
    state = SiteState(tmp_path / "site.db")
    state.begin(PLAN, b"shared", b"private")
    yield state
    state.close()
