import pytest

from fedmedclip.aggregator.store import Store


@pytest.fixture
def store(tmp_path):
    """A store in which no run has begun."""
    store = Store(tmp_path / "aggregator.db")
    yield store
    store.close()
