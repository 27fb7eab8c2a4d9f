"""The aggregator's page with many sites while rounds run: how long it takes to answer, and what it costs.

    python -m benchmarks.liveness.page_load [--sites 500] [--rounds 12] [--requests 200]

Sites are light (`crowd`); aggregator, store, broker and HTTP are real, and whoever asks is a process of its
own. Half of the rounds go on without anybody who watches; during the others a browser's share is played: one
live connection, whose changed sections are fetched, beside requests one after the other. The last line is one
JSON object; exit code 1 when the median of an answer is above 50 ms or the whole page above 300 kB. From the
repository's root.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from statistics import median
from urllib.parse import urlsplit

import numpy as np

from benchmarks.liveness.crowd import CrowdedAggregator, crowded_aggregator
from benchmarks.liveness.resources import processor_seconds
from fedmedclip.protocol.pages.settings import ADDRESS_FILE

GOAL_MILLISECONDS, GOAL_BYTES = 50.0, 300_000
PATHS = (
    "/", "/section/glance", "/section/members", "/section/time-line", "/section/events", "/section/versions",
)  # fmt: skip
_PAUSE_SECONDS = 0.02
_PAIRS = 2


def measure(sites: int, rounds: int, requests: int, folder: Path) -> dict[str, float]:
    """Play blocks of rounds, every second one watched, and return what was measured."""
    block = max(rounds // (2 * _PAIRS), 1)
    alone, watched, answers = [], [], []
    with crowded_aggregator(folder, sites, 2 * _PAIRS * block, page=True) as federation:
        address = (federation.state / ADDRESS_FILE).read_text().strip()
        first = 1
        for _ in range(_PAIRS):
            alone += _costs(federation, range(first, first + block))
            with _asking(address, requests // _PAIRS) as asking:
                watched += _costs(federation, range(first + block, first + 2 * block))
            answers.append(json.loads(asking))
            first += 2 * block
    every = [one for answer in answers for of_path in answer["taken"].values() for one in of_path]
    whole = [one for answer in answers for one in answer["taken"]["/"]]
    return {
        "sites": sites,
        "requests": len(every),
        "median_ms": round(median(every), 1),
        "p99_ms": round(float(np.percentile(every, 99)), 1),
        "median_ms_of_page": round(median(whole), 1),
        "page_bytes": max(answer["page_bytes"] for answer in answers),
        "seconds_per_round": round(median(seconds for seconds, _ in alone), 2),
        "seconds_per_round_watched": round(median(seconds for seconds, _ in watched), 2),
        "processor_seconds_per_round": round(median(spent for _, spent in alone), 2),
        "processor_seconds_per_round_watched": round(median(spent for _, spent in watched), 2),
    }


def _costs(federation: CrowdedAggregator, rounds: range) -> list[tuple[float, float]]:
    """Play rounds; return the seconds that each took, and the aggregator's processor time."""
    costs = []
    for round_number in rounds:
        began, used = time.monotonic(), processor_seconds(federation.aggregator)
        federation.crowd.deliver(round_number)
        costs.append((time.monotonic() - began, processor_seconds(federation.aggregator) - used))
    return costs


@contextmanager
def _asking(address: str, requests: int) -> Iterator[bytearray]:
    """Let another process watch and ask while the block runs; what it says is there after the block."""
    command = [sys.executable, "-m", "benchmarks.liveness.page_load", "--ask", address]
    said = bytearray()
    with subprocess.Popen(
        [*command, "--requests", str(requests)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        yield said
        said += process.stdout.readline()
        process.stdin.close()


def ask(address: str, requests: int) -> None:
    """Watch as a browser does, and ask for the page and its sections; print how long the answers took.

    Goes on watching until standard input ends.
    """
    host = urlsplit(address).netloc
    threading.Thread(target=_watch, args=(host,), daemon=True).start()
    print("begun", flush=True)
    taken: dict[str, list[float]] = {path: [] for path in PATHS}
    size = 0
    for number in range(requests):
        path = PATHS[number % len(PATHS)]
        began = time.perf_counter()
        body = _get(host, path)
        taken[path].append(1000 * (time.perf_counter() - began))
        size = max(size, len(body) if path == "/" else 0)
        time.sleep(_PAUSE_SECONDS)
    print(json.dumps({"taken": taken, "page_bytes": size}), flush=True)
    sys.stdin.read()


def _get(host: str, path: str) -> bytes:
    connection = HTTPConnection(host, timeout=60.0)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        if answer.status != 200:
            raise SystemExit(f"{path} was answered with {answer.status}")
        return answer.read()
    finally:
        connection.close()


def _watch(host: str) -> None:
    """Follow the live connection, and fetch what has changed, until the process ends."""
    connection = HTTPConnection(host, timeout=60.0)
    connection.request("GET", "/events")
    known: dict[str, str] = {}
    for line in connection.getresponse():
        if not line.startswith(b"data: "):
            continue
        marks = json.loads(line[6:])
        for name in [name for name, mark in marks.items() if known.get(name) != mark]:
            _get(host, f"/section/{name}")
        known = marks


def main() -> int:
    """Measure, print, and compare with the goals."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sites", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--ask", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.ask:
        ask(arguments.ask, arguments.requests)
        return 0
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as name:
        found = measure(arguments.sites, arguments.rounds, arguments.requests, Path(name))
    print(json.dumps(found))
    return int(found["median_ms"] > GOAL_MILLISECONDS or found["page_bytes"] > GOAL_BYTES)


if __name__ == "__main__":
    sys.exit(main())
