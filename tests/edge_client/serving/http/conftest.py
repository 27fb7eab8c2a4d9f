import pytest

from fedmedclip.edge_client.serving.http.settings import HttpSettings
from tests.edge_client.serving.http.standin import Queue, door_of


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """An open door on this machine, without a token, that takes three files of together 1 MiB; its queue."""
    queue = Queue(tmp_path_factory.mktemp("incoming"))
    with door_of(queue, HttpSettings(largest_upload_bytes=1 << 20, most_files=3)) as door:
        yield door, queue


@pytest.fixture
def queue(opened):
    """The queue behind the door: empty, and its folder for uploads empty again after each test."""
    _, queue = opened
    queue.empty()
    yield queue
    assert not list(queue.folder.iterdir())


@pytest.fixture
def door(opened, queue):
    """The open door."""
    return opened[0]
