"""Kill the resident service at random moments, with files coming in: nothing is lost, twice or wrong.

    python -m benchmarks.serving.kills --bundle BUNDLE --images FOLDER [--kills 500] [--seed 0] [--work
    FOLDER]

A real `fedmedclip serve` is killed (SIGKILL) and started again while clients send by HTTP (each request
with an Idempotency-Key, sent until it is acknowledged), by DICOM (an archive receives the reports) and into
the watch folder; a quarter of the blows come while it starts, and now and then it is stopped for a while
first (SIGSTOP, SIGCONT). After the last restart it has to answer, by itself, all that was acknowledged,
once, as `fedmedclip predict` answers it, and to leave no file that nobody needs. As root (Linux), a second
part plays on a disk that fills up, again and again. The last line is one JSON object; exit code 1 when
something was lost, twice, wrong or left, and then the files are kept.

The service is forked from a process that has imported all: that it dies with an error of a library's when
it is stopped belongs to that, and is not judged.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from benchmarks.liveness.forking import ForkServer
from benchmarks.serving.play import Play
from benchmarks.serving.resident import IMPORTED

WHILE_STARTING = 0.25
STOPPED = 0.1
MEAN_SECONDS_BETWEEN = 0.5
SMALL_DISK = 32 << 20
_SAY_EVERY = 20
_MOST_STARTS = 10
_LOOK_SECONDS = 0.1


def play_kills(bundle: Path, images: Path, folder: Path, kills: int, seed: int) -> dict[str, Any]:
    """Kill it so often; return the verdict with figures, of which `good` says whether all held."""
    chance = random.Random(seed)
    slowest, stops, starting = 0.0, 0, 0
    with closing(ForkServer(IMPORTED)) as server, closing(Play(bundle, images, folder, seed, server)) as play:
        began = time.monotonic()
        play.start()
        took = 0.5
        for kill in range(1, kills + 1):
            if chance.random() < WHILE_STARTING and kill > 1:
                time.sleep(chance.uniform(0, took))
                starting += 1
            else:
                took = play.service.wait_until_ready()
                slowest = max(slowest, took)
                time.sleep(chance.expovariate(1 / MEAN_SECONDS_BETWEEN))
            if chance.random() < STOPPED:
                stops += 1
                os.kill(play.service.pid, signal.SIGSTOP)
                time.sleep(chance.uniform(0.1, 3))
                os.kill(play.service.pid, signal.SIGCONT)
                time.sleep(chance.uniform(0, 0.5))
            play.service.kill()
            play.service.start()
            if kill % _SAY_EVERY == 0:
                acknowledged = [len(sender.acknowledged) for sender in play.senders]
                print(
                    f"{kill} kills, {time.monotonic() - began:.0f} s, acknowledged {acknowledged}", flush=True
                )
        verdict, drain = play.finish()
        again = sum(sender.sent_again for sender in play.senders)
    return {
        "good": verdict.good, "kills": kills, "while_starting": starting, "stops": stops, **verdict.as_dict(),
        "sent_again": again, "slowest_start_s": round(slowest, 2),
        "drain_s": round(drain, 1),
        "seconds": round(time.monotonic() - began, 1),
    }  # fmt: skip


def play_full_disk(bundle: Path, images: Path, folder: Path, times: int, seed: int) -> dict[str, Any]:
    """Fill the disk of its state so often, and kill it there; return the verdict as `play_kills`."""
    chance = random.Random(seed)
    with ExitStack() as opened:
        server = opened.enter_context(closing(ForkServer(IMPORTED)))
        play = opened.enter_context(closing(Play(bundle, images, folder, seed, server)))
        state = play.service.state
        state.mkdir(mode=0o700)
        opened.enter_context(_small_disk(state))
        # Before its disk is taken away.
        opened.callback(play.end)
        began = time.monotonic()
        play.start()
        refused = restarts = 0
        filler = state / "drift-filler"
        for number in range(times):
            time.sleep(chance.uniform(0.5, 2))
            with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(4096))
            before = sum(sender.sent_again for sender in play.senders)
            time.sleep(chance.uniform(1, 4))
            refused += sum(sender.sent_again for sender in play.senders) - before
            if number % 3 == 1:
                play.service.kill()
                play.service.start()
                time.sleep(chance.uniform(0.5, 3))
            filler.unlink()
            restarts += _started_again(play)
        verdict, drain = play.finish()
    return {
        "good": verdict.good, "times": times, "refused": refused, "restarts": restarts, **verdict.as_dict(),
        "drain_s": round(drain, 1),
        "seconds": round(time.monotonic() - began, 1),
    }  # fmt: skip


def _started_again(play: Play) -> int:
    """Start the service, as a service manager would, until it is ready; return how often that was."""
    for starts in range(_MOST_STARTS):
        while not play.service.ended:
            if play.service.is_ready():
                return starts
            time.sleep(_LOOK_SECONDS)
        play.service.start()
    raise AssertionError(f"it does not start: {play.service.last_lines()}")


@contextlib.contextmanager
def _small_disk(folder: Path) -> Iterator[None]:
    command = ["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK},mode=700", "tmpfs", str(folder)]
    subprocess.run(command, check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def main() -> None:
    """Play, print, exit."""
    options = _options()
    work = (options.work or Path(tempfile.mkdtemp(prefix="kills-"))).resolve()
    parts: dict[str, Callable[[], dict[str, Any]]] = {}
    bundle = options.bundle.resolve()
    if options.kills:
        parts["kills"] = lambda: play_kills(
            bundle, options.images, work / "kills", options.kills, options.seed
        )
    if options.full_disks and os.geteuid() == 0:
        parts["full_disk"] = lambda: play_full_disk(
            bundle, options.images, work / "full-disk", options.full_disks, options.seed
        )
    results = {name: part() for name, part in parts.items()}
    good = all(result["good"] for result in results.values())
    if good and options.work is None:
        shutil.rmtree(work)
    else:
        print(f"the files are kept: {work}", flush=True)
    flat = {f"{part}_{name}": value for part, result in results.items() for name, value in result.items()}
    print(json.dumps({"good": good, **flat}))
    sys.exit(not good)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bundle", type=Path, required=True, help="of a small model: restarts are fast")
    parser.add_argument("--images", type=Path, required=True, help="a folder with JPEGs")
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--full-disks", type=int, default=20, help="how often the disk fills up; 0 for never")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, help="a folder that is not there yet; default: a temporary one")
    return parser.parse_args()


if __name__ == "__main__":
    main()
