"""A disk that is full for a while, also when nothing is stored: it goes on when there is room."""

import time

import pytest

from fedmedclip.edge_client.serving import queue as queue_module
from fedmedclip.edge_client.serving import writer as writer_module
from fedmedclip.edge_client.serving.journal import Journal
from fedmedclip.edge_client.serving.queue import MOST_ATTEMPTS
from fedmedclip.protocol.errors import FullDiskError
from tests.edge_client.serving.queue_examples import arrival, opened_queue

SOON = 5.0


def eventually(holds):
    until = time.monotonic() + SOON
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.fixture
def full_disk(monkeypatch):
    """Gives what makes a method of the journal fail so many times, as on a full disk."""

    def fail(method, times):
        done, failures = getattr(Journal, method), []

        def failing(*arguments):
            if len(failures) < times:
                failures.append(method)
                raise FullDiskError("the disk is full")
            return done(*arguments)

        monkeypatch.setattr(Journal, method, failing)
        return failures

    return fail


def test_the_journal_goes_on_when_its_log_could_not_be_emptied(tmp_path, full_disk, monkeypatch):
    monkeypatch.setattr(writer_module, "_QUIET_SECONDS", 0.01)
    failures = full_disk("empty_log", 2)
    with opened_queue(tmp_path) as queue:
        queue.accept(arrival("one")).result(SOON)
        eventually(lambda: len(failures) == 2)
        queue.accept(arrival("two")).result(SOON)
        assert queue.waiting() == 2


def test_what_cannot_be_put_aside_on_a_full_disk_is_tried_again(tmp_path, full_disk, monkeypatch):
    monkeypatch.setattr(queue_module, "_PAUSE_SECONDS", 0.01)
    with opened_queue(tmp_path) as queue:
        id = queue.accept(arrival()).result(SOON).id
        for _ in range(MOST_ATTEMPTS - 1):
            queue.try_again(queue.take(), "no memory")
        full_disk("settle", 1)
        queue.try_again(queue.take(), "no memory")
        assert queue.waiting() == 1
        assert queue.aside() == []
        queue.try_again(queue.take(), "no memory")
        assert [answer.id for answer in queue.aside()] == [id]
