import pytest

from tests.edge_client.ledger.place import Place


@pytest.fixture
def place(tmp_path):
    """A ledger that has not begun."""
    return Place(tmp_path)
