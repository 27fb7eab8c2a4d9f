"""Each file is answered as `fedmedclip predict` would, and none keeps the others waiting."""

import logging
import threading
import time

import numpy as np
import pytest
from PIL import Image

from fedmedclip.edge_client.features.encoder import Encoder
from fedmedclip.edge_client.images.readers.settings import DEFAULT_READING, ReaderSettings
from fedmedclip.edge_client.serving.active import ActiveClassifier
from fedmedclip.edge_client.serving.figures import Figures
from fedmedclip.edge_client.serving.queue import MOST_ATTEMPTS
from fedmedclip.edge_client.serving.worker import Worker
from fedmedclip.protocol.errors import InvalidInputError
from fedmedclip.protocol.trust.decision import Trust
from tests.edge_client.conftest import write_image
from tests.edge_client.serving.queue_examples import arrival, files, opened_queue

SOON = 10.0


class Files:
    """An outlet that wants the names of all answers, but for one."""

    name = "files"

    def prepare(self, arrival, content, answer, pixels):
        if "refused" in arrival.name:
            raise InvalidInputError("no study it could belong to")
        if "broken" in arrival.name:
            raise ValueError("quotes the header: DOE^JOHN")
        assert content.exists()
        return None if "silent" in arrival.name else answer.name.encode()


@pytest.fixture(scope="module")
def encoder(tiny_bundle):
    with Encoder(tiny_bundle, 1) as opened:
        yield opened


@pytest.fixture
def box(tmp_path, tiny_bundle, encoder):
    """A queue with a worker on two threads; `noted` are the embeddings that it told of."""

    class Box:
        def __init__(self, queue):
            self.queue, self.noted, self.figures = queue, [], Figures()
            self.active = ActiveClassifier(tiny_bundle, encoder, None, lambda: Trust(frozenset(), "user"))

        def ask(self, content, key="image", **more):
            return self.queue.wait(self.queue.accept(arrival(key, content, **more)).result(SOON).id)

        def start(self, settings=DEFAULT_READING):
            note = lambda *of: self.noted.append(of)  # noqa: E731
            parts = self.queue, self.active, settings, [Files()], self.figures, 2
            self.worker = Worker(*parts, note=note)
            self.worker.start()

    with opened_queue(tmp_path) as queue:
        box = Box(queue)
        yield box
        queue.stop_accepting()
        box.active.end()
        box.worker.join()


def png(path, seed=0):
    return write_image(path, seed).read_bytes()


def test_a_file_is_answered_as_predict_does(box, tmp_path):
    box.start()
    content = png(tmp_path / "a.png")
    answer = box.ask(content).result(SOON)
    [expected] = box.active.classifier().predict(tmp_path / "a.png")
    [result] = answer.results
    assert (result.outcome, result.label) == ("answered", expected.label)
    assert result.probabilities == expected.probabilities
    assert answer.provenance == box.active.classifier().provenance
    assert "Research use only" in answer.notice
    assert box.figures.counts().results == {("http", "answered"): 1}
    [(_, embedding, noted, _)] = box.noted
    np.testing.assert_array_equal(embedding, box.active.classifier().embed(tmp_path / "a.png")[0])
    assert noted == result


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n" + bytes(40)])
def test_what_is_no_image_is_answered_with_the_reason_and_the_next_one_too(box, tmp_path, content):
    box.start()
    bad, good = box.ask(content, "bad"), box.ask(png(tmp_path / "good.png"), "good")
    [result] = bad.result(SOON).results
    assert result.outcome == "unreadable"
    assert result.reason
    assert good.result(SOON).results[0].outcome == "answered"


def test_each_frame_is_a_result_where_all_are_asked_for(box, tmp_path):
    box.start(ReaderSettings(frames="all"))
    pages = [Image.new("RGB", (40, 30), colour) for colour in ("red", "green", "blue")]
    pages[0].save(tmp_path / "pages.tiff", save_all=True, append_images=pages[1:])
    answer = box.ask((tmp_path / "pages.tiff").read_bytes()).result(SOON)
    assert [result.frame for result in answer.results] == [1, 2, 3]
    assert len({result.probabilities["stroke"] for result in answer.results}) == 3


def test_a_fault_of_an_outlet_costs_its_delivery_and_says_nothing_of_a_header(box, tmp_path, caplog):
    caplog.set_level(logging.INFO, "fedmedclip.serve")
    box.start()
    content = png(tmp_path / "a.png")
    for key in ("refused", "broken", "silent", "fine"):
        assert box.ask(content, key).result(SOON).results[0].outcome == "answered"
    box.queue.stop_accepting()
    box.worker.join()
    assert box.queue.deliveries_waiting() == {"files": 1}
    assert "no study it could belong to" in caplog.text
    assert "internal error: ValueError in test_worker.py" in caplog.text
    assert "DOE" not in caplog.text


def test_a_file_at_which_the_encoder_fails_is_put_aside_at_last(box, tmp_path, monkeypatch, caplog):
    failures = iter([MemoryError("out of memory")] * MOST_ATTEMPTS)
    encode = type(box.active.classifier()).encode

    def failing(self, pixels):
        for failure in failures:
            raise failure
        return encode(self, pixels)

    monkeypatch.setattr(type(box.active.classifier()), "encode", failing)
    first = box.ask(png(tmp_path / "a.png", 1), "a")
    box.start()
    assert "MemoryError" in first.result(SOON).results[0].reason
    assert box.ask(png(tmp_path / "b.png", 2), "b").result(SOON).results[0].outcome == "answered"
    assert caplog.text.count("is tried again") == MOST_ATTEMPTS - 1


def test_nothing_is_left_of_what_was_answered(box, tmp_path):
    box.start()
    box.ask(png(tmp_path / "a.png"), "silent").result(SOON)
    box.queue.stop_accepting()
    box.worker.join()
    assert files(tmp_path) == ["a.png"]
    assert box.worker.progress() == {}


def test_a_fault_after_the_answer_costs_no_thread(box, tmp_path, caplog):
    def note(*of):
        raise ValueError("what it says")

    parts = box.queue, box.active, DEFAULT_READING, [], box.figures, 1
    box.worker = Worker(*parts, note=note)
    box.worker.start()
    for number in range(3):
        answer = box.ask(png(tmp_path / "a.png", number), f"image {number}").result(SOON)
        assert answer.results[0].outcome == "answered"
    box.queue.stop_accepting()
    box.worker.join()
    assert caplog.text.count("internal error: ValueError") == 3
    assert "what it says" not in caplog.text


def test_a_decoder_that_hangs_keeps_nobody_from_ending(box, tmp_path, monkeypatch):
    hung, free = threading.Event(), threading.Event()

    def hang(self, pixels):
        hung.set()
        free.wait(SOON)
        raise MemoryError

    monkeypatch.setattr(type(box.active.classifier()), "encode", hang)
    box.start()
    box.ask(png(tmp_path / "a.png"))
    assert hung.wait(SOON)
    box.queue.stop_accepting()
    began = time.monotonic()
    box.worker.join(0.2)
    assert time.monotonic() - began < 2
    free.set()
