"""SIGKILL at any moment: every image has its answer and exactly one row, and no image was touched."""

import csv
import random
import signal
import subprocess
import sys
import time

import pytest

from tests import ROOT
from tests.edge_client.serving.folder.examples import eventually

PNG = b"\x89PNG\r\n\x1a\n%d\0\0\0\0IEND\xaeB`\x82"
KILLS, IMAGES_EACH = 12, 15


@pytest.mark.slow
def test_a_service_that_is_killed_again_and_again(tmp_path):
    watched, state = tmp_path / "watched", tmp_path / "state"
    watched.mkdir()
    state.mkdir()
    moments = random.Random(1)
    names = []
    command = [sys.executable, "-m", "tests.edge_client.serving.folder.killed_service", watched, state]
    for kill in range(KILLS + 1):
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == b"serving\n"
        for number in range(IMAGES_EACH):
            names.append(f"{kill}-{number}.png")
            (watched / names[-1]).write_bytes(PNG % len(names))
        if kill < KILLS:
            time.sleep(moments.uniform(0.15, 0.6))
        else:
            eventually(lambda: all((watched / f"{name}.json").exists() for name in names), 60)
            eventually(lambda: len(rows(watched)) == len(names), 60)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
    found = rows(watched)
    assert sorted(row["path"] for row in found) == sorted(names)
    assert len({row["id"] for row in found}) == len(names)
    assert [(watched / name).read_bytes() for name in names] == [PNG % n for n in range(1, len(names) + 1)]


def rows(watched):
    with (watched / "answers.csv").open(newline="") as file:
        return list(csv.DictReader(file))
