"""Nodes with a queue in memory."""

import pytest

from tests.edge_client.serving.dicom.examples import (
    MemoryQueue,
    started_node,
)


@pytest.fixture
def queue(tmp_path):
    return MemoryQueue(tmp_path)


@pytest.fixture
def node(queue):
    node = started_node(queue)
    yield node
    node.stop()


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A node that bears everything, with its queue."""
    queue = MemoryQueue(tmp_path_factory.mktemp("node"))
    node = started_node(queue, idle_seconds=1, largest_file_bytes=1 << 20)
    yield node, queue
    node.stop()
