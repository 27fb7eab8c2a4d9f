"""Deliveries arrive, whatever stood in their way before."""

import sqlite3
import threading
import time
from contextlib import closing

import pytest

from fedmedclip.edge_client.serving import courier as courier_module
from fedmedclip.edge_client.serving.courier import LONGEST_PAUSE_SECONDS, Courier, pause_after
from fedmedclip.edge_client.serving.outlet import DeliveryError
from tests.edge_client.serving.queue_examples import arrival, files, finish, opened_queue

SOON = 5.0


class Archive:
    """An outlet that fails as it is told, and keeps what arrives."""

    name = "archive"

    def __init__(self, failures=()):
        self.failures = list(failures)
        self.got = []
        self.changed = threading.Condition()

    def deliver(self, payload, answer):
        with self.changed:
            if self.failures and (failure := self.failures.pop(0)):
                raise failure
            self.got.append((payload, answer.id))
            self.changed.notify_all()

    def wait_for(self, number):
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.got) >= number, SOON), self.got


def answered(queue, *keys):
    ids = []
    for key in keys:
        ids.append(queue.accept(arrival(key)).result(SOON).id)
        finish(queue, queue.take(), {"archive": key.encode()})
    return ids


@pytest.fixture
def no_pauses(monkeypatch):
    monkeypatch.setattr(courier_module, "FIRST_PAUSE_SECONDS", 0.01)


def test_what_earlier_processes_left_and_what_comes_is_delivered_in_order(tmp_path):
    archive = Archive()
    with opened_queue(tmp_path) as queue:
        left = answered(queue, "left")
        courier = Courier(queue, archive)
        queue.when_delivery_is_added(courier.news)
        courier.start()
        archive.wait_for(1)
        came = answered(queue, "came", "came after")
        archive.wait_for(3)
        courier.stop()
        assert archive.got == list(zip([b"left", b"came", b"came after"], [*left, *came], strict=True))
        assert queue.deliveries_waiting() == {}
    assert files(tmp_path) == []


def test_an_archive_that_is_away_gets_all_when_it_is_back(tmp_path, no_pauses, caplog):
    archive = Archive([DeliveryError("connection refused"), OSError("no route"), None])
    with opened_queue(tmp_path) as queue:
        answered(queue, "one", "two")
        courier = Courier(queue, archive)
        courier.start()
        archive.wait_for(2)
        courier.stop()
        assert sorted(payload for payload, _ in archive.got) == [b"one", b"two"]
    assert caplog.text.count("connection refused") == 1


def test_what_is_refused_for_good_is_put_aside_and_holds_up_nothing(tmp_path):
    archive = Archive([DeliveryError("SOP class not supported", permanent=True)])
    with opened_queue(tmp_path) as queue:
        refused, taken = answered(queue, "one", "two")
        courier = Courier(queue, archive)
        courier.start()
        archive.wait_for(1)
        courier.stop()
        assert archive.got == [(b"two", taken)]
        assert queue.deliveries_waiting() == {}
        assert not queue.spool.payload(refused, "archive").exists()


def test_a_clock_set_back_by_years_delays_nothing_for_years(tmp_path, monkeypatch):
    archive = Archive()
    with opened_queue(tmp_path) as queue:
        answered(queue, "one")
        now = time.time()
        monkeypatch.setattr(time, "time", lambda: now - 10 * 365 * 86400)
        courier = Courier(queue, archive)
        courier.start()
        archive.wait_for(1)
        courier.stop()


def test_pauses_grow_to_five_minutes():
    pauses = [pause_after(failures) for failures in range(1, 2000)]
    assert pauses[:3] == [1.0, 2.0, 4.0]
    assert sorted(pauses) == pauses
    assert pauses[-1] == LONGEST_PAUSE_SECONDS == 300.0


def test_one_that_always_fails_holds_up_no_others(tmp_path):
    class Picky(Archive):
        def deliver(self, payload, answer):
            if payload == b"bad":
                raise DeliveryError("something else is there")
            super().deliver(payload, answer)

    archive = Picky()
    with opened_queue(tmp_path) as queue:
        answered(queue, "bad")
        courier = Courier(queue, archive)
        queue.when_delivery_is_added(courier.news)
        courier.start()
        for number in range(4):
            # Between two, the bad one fails once more.
            time.sleep(0.6 if number else 0)
            answered(queue, f"good {number}")
            archive.wait_for(number + 1)
        courier.stop()
        assert queue.deliveries_waiting() == {"archive": 1}


def test_a_damaged_answer_holds_up_no_others(tmp_path):
    archive = Archive()
    with opened_queue(tmp_path) as queue:
        damaged, whole = answered(queue, "damaged", "whole")
    with closing(sqlite3.connect(tmp_path / "serve.db")) as database:
        database.execute("UPDATE arrivals SET answer = x'c1' WHERE id = ?", (damaged,))
        database.commit()
    with opened_queue(tmp_path) as queue:
        courier = Courier(queue, archive)
        courier.start()
        archive.wait_for(1)
        courier.stop()
        assert archive.got == [(b"whole", whole)]
        assert queue.deliveries_waiting() == {"archive": 1}
