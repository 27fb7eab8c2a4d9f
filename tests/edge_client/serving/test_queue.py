"""What was accepted is answered, once, whenever the process ends."""

import logging
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from fedmedclip.edge_client.serving.queue import MOST_ATTEMPTS, QueueFullError
from tests.edge_client.serving.queue_examples import answer_to, arrival, files, finish, opened_queue

SOON = 5.0


@pytest.fixture
def queue(tmp_path):
    with opened_queue(tmp_path) as opened:
        yield opened


def test_what_is_accepted_is_on_disk_and_is_answered_where_it_is_waited_for(queue, tmp_path):
    accepted = queue.accept(arrival()).result(SOON)
    assert (tmp_path / "waiting" / accepted.id).read_bytes() == b"pixels"
    waiting = queue.wait(accepted.id)
    work = queue.take()
    assert (work.id, work.content.read_bytes(), work.attempts) == (accepted.id, b"pixels", 1)
    assert queue.answer(accepted.id) is None
    answer = finish(queue, work)
    assert waiting.result(SOON) == queue.answer(accepted.id) == answer
    assert queue.wait(accepted.id).result(SOON) == answer
    assert files(tmp_path) == []
    assert queue.waiting() == 0


def test_the_same_again_is_not_answered_again(queue, tmp_path):
    first = queue.accept(arrival()).result(SOON)
    assert queue.accept(arrival()).result(SOON) == type(first)(first.id, True)
    finish(queue, queue.take())
    again = queue.accept(arrival(content=b"whatever it holds")).result(SOON)
    assert (again.id, again.known) == (first.id, True)
    assert files(tmp_path) == []
    assert queue.waiting() == 0


def test_many_at_once_with_few_keys_are_accepted_once_each(queue):
    with ThreadPoolExecutor(8) as pool:
        accepted = list(pool.map(lambda n: queue.accept(arrival(f"key {n % 5}")).result(SOON), range(40)))
    assert len({found.id for found in accepted}) == 5
    assert sum(not found.known for found in accepted) == 5


def test_a_file_that_came_to_incoming_is_moved_another_is_copied_and_one_that_stays_is_left(queue, tmp_path):
    moved, copied, staying = queue.spool.incoming / "part", tmp_path / "copied", tmp_path / "staying"
    for path in (moved, copied, staying):
        path.write_bytes(path.name.encode())
    for path, copy in ((moved, True), (copied, True), (staying, False)):
        queue.accept(arrival(path.name, path, copy=copy)).result(SOON)
        work = queue.take()
        assert work.content.read_bytes() == path.name.encode()
        assert (work.content == path) is not copy
        finish(queue, work)
    assert files(tmp_path) == ["copied", "staying"]


def test_a_door_with_many_leaves_the_others_their_room_and_their_turn(tmp_path):
    with opened_queue(tmp_path, most_waiting=3) as queue:
        for number in range(3):
            queue.accept(arrival(f"folder {number}", door="folder")).result(SOON)
        with pytest.raises(QueueFullError, match="later"):
            queue.accept(arrival("folder 3", door="folder")).result(SOON)
        queue.accept(arrival("http", door="http")).result(SOON)
        assert {queue.take().arrival.door for _ in range(2)} == {"folder", "http"}


def test_after_an_end_without_warning_all_is_as_it_was(tmp_path):
    with opened_queue(tmp_path) as queue:
        ids = [queue.accept(arrival(f"key {n}", context={"uid": str(n)})).result(SOON).id for n in range(3)]
        finish(queue, queue.take())
    # What a kill leaves before its row is written, and after it was deleted.
    for folder in ("incoming", "waiting", "outgoing", "aside"):
        (tmp_path / folder / "left").write_bytes(b"secret")
    with opened_queue(tmp_path) as queue:
        assert files(tmp_path) == sorted(ids[1:])
        assert queue.answer(ids[0]).results[0].label == "a"
        taken = [queue.take() for _ in range(2)]
        assert [work.id for work in taken] == ids[1:]
        assert [work.arrival.context for work in taken] == [{"uid": "1"}, {"uid": "2"}]


def test_what_may_have_ended_the_process_is_alone_in_hand_and_put_aside_when_it_does_it_again(
    tmp_path, caplog
):
    with opened_queue(tmp_path) as queue:
        ids = [queue.accept(arrival(f"key {n}")).result(SOON).id for n in range(3)]
        assert [queue.take().id for _ in range(2)] == ids[:2]
    for attempt in range(2, MOST_ATTEMPTS + 1):
        with opened_queue(tmp_path) as queue:
            suspect = queue.take()
            assert (suspect.id, suspect.attempts) == (ids[0], attempt)
            others = []
            waiter = threading.Thread(target=lambda queue=queue, others=others: others.append(queue.take()))
            waiter.start()
            time.sleep(0.05)
            assert not others
            queue.stop_accepting()
            waiter.join()
    with opened_queue(tmp_path) as queue:
        [aside] = queue.aside()
        assert aside.id == ids[0]
        assert f"ended {MOST_ATTEMPTS} times" in aside.results[0].reason
        assert (tmp_path / "aside" / ids[0]).read_bytes() == b"pixels"
        assert queue.wait(ids[0]).result(SOON) == aside
        assert finish(queue, queue.take()).id == ids[1]
        assert finish(queue, queue.take()).id == ids[2]
    assert "is put aside" in caplog.text


def test_what_fails_here_is_tried_again_at_the_end_and_then_put_aside(queue):
    bad, good = (queue.accept(arrival(key)).result(SOON).id for key in ("bad", "good"))
    assert queue.take().id == bad
    for _ in range(MOST_ATTEMPTS - 1):
        queue.try_again(next(work for work in queue.in_hand() if work.id == bad), "no memory")
        if (work := queue.take()).id == good:
            finish(queue, work)
            assert queue.take().id == bad
    queue.try_again(queue.in_hand()[0], "no memory")
    assert queue.answer(bad).results[0].reason == "no memory"
    assert queue.waiting() == 0


def test_what_the_box_cannot_do_now_waits_for_ever(queue):
    id = queue.accept(arrival()).result(SOON).id
    for _ in range(3 * MOST_ATTEMPTS):
        queue.put_back(queue.take(), "the disk is full")
    work = queue.take()
    assert work.id == id
    finish(queue, work)


def test_a_full_disk_refuses_what_comes_and_keeps_what_was_there(tmp_path):
    """Of a real file system of 24 MiB, where this user may mount one: 16 stay free."""
    place = tmp_path / "small"
    place.mkdir()
    if os.geteuid() or os.system(f"mount -t tmpfs -o size=24m none '{place}' 2>/dev/null"):
        pytest.skip("a small file system cannot be mounted here")
    try:
        with opened_queue(place) as queue:
            kept = queue.accept(arrival("kept", b"small")).result(SOON).id
            with pytest.raises(Exception, match="disk is full"):
                queue.accept(arrival("large", bytes(9 << 20))).result(SOON)
            assert files(place) == [kept]
            assert not queue.accept(arrival("large", b"now small")).result(SOON).known
            assert queue.take().content.read_bytes() == b"small"
    finally:
        os.system(f"umount '{place}'")


def test_old_answers_are_forgotten_but_nothing_that_is_owed(tmp_path, monkeypatch):
    with opened_queue(tmp_path, remember_days=1.0) as queue:
        done, owed, waits = (queue.accept(arrival(key)).result(SOON).id for key in ("done", "owed", "waits"))
        finish(queue, queue.take())
        finish(queue, queue.take(), {"archive": b"report"})
        queue.look_after()
        assert queue.answer(done) is not None
        now = time.time()
        monkeypatch.setattr(time, "time", lambda: now + 2 * 86400)
        queue.look_after()
        assert (queue.answer(done), queue.state_of(waits)) == (None, "waiting")
        assert queue.answer(owed) is not None
        queue.delivered(queue.next_delivery("archive"))
        queue.look_after()
        assert queue.answer(owed) is None
        assert queue.accept(arrival("done")).result(SOON).known is False


def test_nothing_of_what_was_answered_is_left_in_any_file(tmp_path):
    with opened_queue(tmp_path) as queue:
        queue.accept(arrival("1.2.840.PLANTED", b"DOE^JOHN")).result(SOON)
        finish(queue, queue.take(), {"archive": b"DOE^JOHN"})
        queue.delivered(queue.next_delivery("archive"))
    everything = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"DOE^JOHN" not in everything
    assert b"key" not in everything.replace(b"key BLOB", b"")


def test_names_that_are_no_text_are_kept_as_they_can_be(queue, tmp_path):
    path = tmp_path / os.fsdecode(b"scan \xff.png")
    path.write_bytes(b"pixels")
    accepted = queue.accept(arrival(f"folder {path}", path, copy=False, door="folder")).result(SOON)
    assert queue.take().content == path
    assert queue.arrival(accepted.id).content == path


def test_an_unknown_id_is_waited_for_in_vain(queue):
    with pytest.raises(KeyError):
        queue.wait("no such id").result(SOON)


def test_payloads_are_delivered_tried_again_or_put_aside(queue, tmp_path, caplog):
    caplog.set_level(logging.INFO, "fedmedclip.serve")
    told = []
    queue.when_delivery_is_added(lambda: told.append(True))
    queue.accept(arrival()).result(SOON)
    work = queue.take()
    finish(queue, work, {"archive": b"report", "files": b"copy"})
    assert told == [True]
    assert queue.deliveries_waiting() == {"archive": 1, "files": 1}
    delivery = queue.next_delivery("archive")
    assert queue.payload(delivery) == b"report"
    queue.postpone(delivery, 1e12, "archive away")
    assert queue.next_delivery("archive").attempts == 1
    queue.delivered(queue.next_delivery("files"))
    queue.give_up(work.id, "archive", "refused for good")
    assert queue.deliveries_waiting() == {}
    assert files(tmp_path) == []


class QueueMachine(RuleBasedStateMachine):
    """Whatever happens in whatever order, with ends in between: each key is answered once, none is lost."""

    def __init__(self):
        super().__init__()
        from tempfile import TemporaryDirectory

        self.folder = TemporaryDirectory()
        self.accepted, self.answered = {}, {}
        self.hand = []
        self.begin()

    def begin(self):
        from pathlib import Path

        self.context = opened_queue(Path(self.folder.name))
        self.queue = self.context.__enter__()
        self.hand = []

    @rule(key=st.integers(0, 6))
    def come(self, key):
        found = self.queue.accept(arrival(f"key {key}")).result(SOON)
        assert found.known is (key in self.accepted)
        assert self.accepted.setdefault(key, found.id) == found.id

    def can_take(self):
        return (
            any(waiting for waiting in self.queue._waiting.values())
            and not self.queue._suspects
            and (not self.queue._alone)
        ) or (bool(self.queue._suspects) and not self.queue._in_hand)

    @precondition(can_take)
    @rule()
    def take(self):
        self.hand.append(self.queue.take())

    @precondition(lambda self: self.hand)
    @rule(data=st.data())
    def finish(self, data):
        work = self.hand.pop(data.draw(st.integers(0, len(self.hand) - 1)))
        assert work.id not in self.answered
        self.answered[work.id] = finish(self.queue, work)

    @precondition(lambda self: self.hand)
    @rule()
    def put_back(self):
        self.queue.put_back(self.hand.pop(), "the disk is full")

    @rule()
    def end(self):
        self.context.__exit__(None, None, None)
        self.begin()
        for answer in self.queue.aside():
            self.answered.setdefault(answer.id, answer)

    @invariant()
    def nothing_is_lost(self):
        assert self.queue.waiting() == len(set(self.accepted.values()) - self.answered.keys())

    def teardown(self):
        for id, answer in self.answered.items():
            assert self.queue.answer(id) == answer
        self.context.__exit__(None, None, None)
        self.folder.cleanup()


TestQueueMachine = QueueMachine.TestCase
TestQueueMachine.settings = settings(max_examples=6, stateful_step_count=25, deadline=None)


def test_an_answer_is_never_written_over(queue):
    queue.accept(arrival()).result(SOON)
    work = queue.take()
    first = finish(queue, work)
    queue.finish(work, answer_to(work.id, work.arrival, label="another"), {})
    assert queue.answer(work.id) == first


def test_the_ending_of_a_name_stays_with_its_content_over_restarts(tmp_path):
    with opened_queue(tmp_path) as queue:
        queue.accept(arrival("named", suffix=".dcm")).result(SOON)
        assert queue.take().content.suffix == ".dcm"
    with opened_queue(tmp_path) as queue:
        work = queue.take()
        assert (work.content.suffix, work.content.read_bytes()) == (".dcm", b"pixels")
        finish(queue, work)
    assert files(tmp_path) == []


def test_what_is_put_aside_is_delivered_as_well_and_a_kill_leaves_its_content(tmp_path):
    def aside(work, reason):
        assert work.content.read_bytes() == b"pixels"
        return answer_to(work.id, work.arrival, reason=reason), {"files": b"why"}

    with opened_queue(tmp_path, aside=aside) as queue:
        id = queue.accept(arrival()).result(SOON).id
    for _ in range(MOST_ATTEMPTS):
        with opened_queue(tmp_path, aside=aside) as queue:
            queue.take()
    with opened_queue(tmp_path, aside=aside) as queue:
        assert queue.payload(queue.next_delivery("files")) == b"why"
    # As if a kill had come before the content was moved.
    (tmp_path / "aside" / id).rename(tmp_path / "waiting" / id)
    with opened_queue(tmp_path) as queue:
        assert (tmp_path / "aside" / id).read_bytes() == b"pixels"


def test_what_the_box_could_not_do_is_not_held_against_a_file_over_restarts(tmp_path):
    for _ in range(MOST_ATTEMPTS + 1):
        with opened_queue(tmp_path) as queue:
            queue.accept(arrival()).result(SOON)
            for _ in range(3):
                queue.put_back(queue.take(), "the disk is full")
    with opened_queue(tmp_path) as queue:
        assert queue.take().attempts == 1
