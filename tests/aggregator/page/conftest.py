import pytest

from tests.simulation.federation.loopback import Loopback

TOKEN = "0123456789abcdef-right"


@pytest.fixture
def federation(tmp_path):
    """Three sites, of which two have delivered for round 3 of 5."""
    federation = Loopback(tmp_path, sites=3, rounds=5, embedding_size=8)
    while federation.coordinator.global_head.version < 2:
        federation.step()
    return federation
