"""The service as a process: what it answers, how it ends, and that it goes on after any end."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest

from fedmedclip.edge_client.heads.heads_file import Heads, save_heads
from fedmedclip.edge_client.serving.service import open_doors
from fedmedclip.edge_client.versions.recent import RECENT, recent_embeddings
from fedmedclip.edge_client.versions.versions import Versions
from fedmedclip.protocol.bundle.bundle import open_bundle
from fedmedclip.protocol.errors import FullDiskError
from fedmedclip.protocol.heads.shared_heads import initial_shared_head
from tests import ROOT
from tests.edge_client.conftest import EMBEDDING_SIZE, write_image, write_tiny_bundle

SOON = 20.0


def serve(*arguments, folder):
    return subprocess.run(
        [sys.executable, "-m", "fedmedclip", "serve", *arguments],
        cwd=folder, capture_output=True, text=True, timeout=60, check=False, env=environment(folder),
    )  # fmt: skip


def environment(folder):
    return {**os.environ, "XDG_CONFIG_HOME": str(folder / "config"), "PYTHONPATH": str(ROOT)}


class Service:
    """A running service of a folder with `serve.toml`."""

    def __init__(self, folder):
        self.folder = folder
        self.log = (folder / "serve.log").open("a")
        self.opened_before = self.text().count("open: HTTP")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "fedmedclip", "serve", "--config", "serve.toml"],
            cwd=folder, stderr=self.log, stdout=self.log, env=environment(folder),
        )  # fmt: skip

    def until_open(self):
        until = time.monotonic() + SOON
        while self.text().count("open: HTTP") == self.opened_before:
            assert self.process.poll() is None, self.text()
            assert time.monotonic() < until, self.text()
            time.sleep(0.02)
        self.port = int(re.findall(r"HTTP on 127.0.0.1:(\d+)", self.text())[-1])
        return self

    def text(self):
        return (self.folder / "serve.log").read_text()

    def ask(self, path, content=None, **headers):
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}", content, {"Content-Type": "image/png", **headers}
        )
        try:
            with urllib.request.urlopen(request, timeout=SOON) as found:
                return found.status, json.loads(found.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.log.close()

    def end(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        code = self.process.wait(SOON)
        self.log.close()
        return code


@pytest.fixture
def start():
    """Starts a service of a folder; none is left when the test ends, however it does."""
    started = []

    def begin(folder):
        started.append(Service(folder))
        return started[-1].until_open()

    yield begin
    for service in started:
        service.kill()


@pytest.fixture
def place(tmp_path):
    """A folder with bundle, heads, images to watch and a configuration of two doors."""
    bundle = write_tiny_bundle(tmp_path / "bundle")
    heads(tmp_path, bundle, 1)
    write_image(tmp_path / "images" / "a.png", 1)
    (tmp_path / "serve.toml").write_text(
        '[serve]\nbundle = "bundle"\nheads = "heads.safetensors"\ninsecure = true\n'
        "[http]\nport = 0\n"
        '[folder]\npath = "images"\npoll_seconds = 0.1\nsettle_seconds = 0.1\n'
    )
    return tmp_path


def heads(folder, bundle, version):
    shared = initial_shared_head("fedmedclip", EMBEDDING_SIZE, version)
    save_heads(
        folder / "heads.safetensors", Heads("fedmedclip", shared, None, "trial", "site-a", version), bundle
    )


def wait_for(condition):
    until = time.monotonic() + SOON
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_it_answers_follows_the_heads_and_ends_when_asked_to(place, start):
    service = start(place)
    code, body = service.ask("/v1/predict", (place / "images" / "a.png").read_bytes())
    [answer] = body["answers"]
    assert (code, answer["results"][0]["outcome"]) == (200, "answered")
    assert answer["provenance"]["head_version"] == 1
    wait_for((place / "images" / "a.png.json").exists)
    by_folder = json.loads((place / "images" / "a.png.json").read_text())
    assert by_folder["results"][0]["probabilities"] == answer["results"][0]["probabilities"]
    heads(place, open_bundle(place / "bundle"), 2)
    wait_for(lambda: service.ask("/v1/model")[1]["provenance"]["head_version"] == 2)
    # Where a site keeps versions, its operator goes back, and recent images are kept to try new ones on.
    versions = Versions(place)
    versions.look()
    heads(place, open_bundle(place / "bundle"), 3)
    versions.look()
    wait_for(lambda: service.ask("/v1/model")[1]["provenance"]["head_version"] == 3)
    assert versions.rollback("x").version == 2
    wait_for(lambda: service.ask("/v1/model")[1]["provenance"]["head_version"] == 2)
    found = json.loads(serve("status", "--config", "serve.toml", "--json", folder=place).stdout)
    assert (found["running"], found["waiting"], found["answered"]) == (True, 0, 2)
    assert "nothing to compare with" in serve("drift", "--config", "serve.toml", folder=place).stdout
    assert service.end() == 0
    assert "Traceback" not in service.text()
    bundle = open_bundle(place / "bundle")
    assert len(recent_embeddings(place / RECENT, bundle.digest, EMBEDDING_SIZE)) == 2


def test_a_kill_loses_nothing_and_repeats_nothing(place, start):
    service = start(place)
    content = (place / "images" / "a.png").read_bytes()
    first = service.ask("/v1/predict", content, **{"Idempotency-Key": "one"})[1]["answers"]
    wait_for((place / "images" / "a.png.json").exists)
    before = (place / "images" / "a.png.json").stat().st_mtime_ns
    service.end(signal.SIGKILL)
    part = place / "serve-state" / ".drift.state.abcdefgh.partial"
    part.write_bytes(b"half")
    write_image(place / "images" / "b.png", 2)
    service = start(place)
    assert service.ask("/v1/predict", content, **{"Idempotency-Key": "one"})[1]["answers"] == first
    wait_for((place / "images" / "b.png.json").exists)
    assert (place / "images" / "a.png.json").stat().st_mtime_ns == before
    # The row comes after the file.
    wait_for(lambda: len((place / "images" / "answers.csv").read_text().splitlines()) == 3)
    assert not part.exists()
    assert service.end(signal.SIGINT) == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text.partition("[http]")[0], "opens no door"),
        (lambda text: text.replace('"images"', '"no such folder"'), "folder"),
        (lambda text: text.replace('"bundle"', '"nothing"'), "nothing"),
        (lambda text: text.replace("port = 0", 'port = 0\nhost = "0.0.0.0"'), "TLS"),
        (lambda text: text.replace("port = 0", "prot = 0"), "prot"),
    ],
)
def test_what_a_person_has_to_mend_is_one_line(place, change, words):
    path = place / "serve.toml"
    path.write_text(change(path.read_text()))
    done = serve("--config", "serve.toml", folder=place)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_two_of_a_state_folder_are_refused(place, start):
    service = start(place)
    done = serve("--config", "serve.toml", folder=place)
    assert (done.returncode, service.end()) == (2, 0)
    assert "another process is using the state folder" in done.stderr


def test_a_door_that_finds_the_disk_full_opens_when_there_is_room(caplog):
    class Door:
        full = True

        def start(self):
            if self.full:
                raise FullDiskError("the disk is full")

        def described(self):
            return "a door"

    first, second = Door(), Door()
    second.full = False
    assert open_doors([first, second]) == [first]
    assert open_doors([first]) == [first]
    first.full = False
    assert open_doors([first]) == []
