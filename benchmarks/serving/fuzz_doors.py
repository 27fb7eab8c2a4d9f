"""Hostile input at all doors of a running service: it lives, stays small, and answers all others.

    python -m benchmarks.serving.fuzz_doors --bundle BUNDLE --images FOLDER [--minutes 10] [--seed 0]
    [--work FOLDER]

Mutated requests, associations and files go to a real `fedmedclip serve` from several clients at once,
beside others that mean well. All the while the process has to live, its memory to stay bounded,
`/v1/health` to answer within a second (on a machine without other work), and nothing unexpected to stand in
its log; in the end, all that was acknowledged has its answer and nothing waits. The last line is one JSON
object; exit code 1 with a finding, and then the last inputs are kept.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from benchmarks.serving.hostile_clients import HostileClient, HostileDicom, HostileFiles, HostileHttp
from benchmarks.serving.play import Play

LARGEST_GROWTH_MB = 120.0
LONGEST_HEALTH_SECONDS = 1.0
_LOOK_SECONDS = 0.5
_SAY_SECONDS = 30.0


def fuzz(bundle: Path, images: Path, folder: Path, minutes: float, seed: int) -> dict[str, Any]:
    """Fuzz for so many minutes; return figures, of which `findings` is empty when all held."""
    findings: list[str] = []
    with closing(Play(bundle, images, folder, seed, None, pause_seconds=1.0)) as play:
        play.start()
        hostile = _hostile(play, seed)
        before = play.service.memory()["rss"]
        for client in hostile:
            client.start()
        slowest, peak = _watched(play, hostile, minutes, findings)
        for client in hostile:
            client.stop()
        if findings:
            _keep(hostile, folder / "last-inputs")
        if not play.service.ended:
            findings += _after(play)
    return {
        "findings": findings, "good": not findings, "minutes": minutes,
        "played": {type(client).__name__: client.played for client in hostile},
        "heard": {type(client).__name__: dict(client.heard.most_common(12)) for client in hostile},
        "slowest_health_s": round(slowest, 2), "first_rss_mb": before, "peak_rss_mb": peak,
    }  # fmt: skip


def _hostile(play: Play, seed: int) -> list[HostileClient]:
    contents = play.contents
    return [
        HostileHttp(f"{seed} http 1", play.service.port, contents),
        HostileHttp(f"{seed} http 2", play.service.port, contents),
        HostileDicom(f"{seed} dicom 1", play.dicom_port, play.dicoms),
        HostileDicom(f"{seed} dicom 2", play.dicom_port, play.dicoms),
        HostileFiles(
            f"{seed} files", play.watch / "hostile", [*contents, *(image.content for image in play.dicoms)]
        ),
    ]


def _watched(
    play: Play, hostile: Sequence[HostileClient], minutes: float, findings: list[str]
) -> tuple[float, float]:
    """Look at the service until the time is over or it ends; return slowest look and largest memory."""
    began = said = time.monotonic()
    slowest = peak = first = 0.0
    slow = 0
    while time.monotonic() - began < 60 * minutes:
        time.sleep(_LOOK_SECONDS)
        if play.service.ended:
            findings.append(f"the process ended: {play.service.last_lines()}")
            break
        asked = time.monotonic()
        answered = play.service.is_ready(10 * LONGEST_HEALTH_SECONDS)
        took = time.monotonic() - asked
        slowest = max(slowest, took)
        slow += took > LONGEST_HEALTH_SECONDS
        # All connections may be taken for a moment: then it says so.
        if not answered and took > LONGEST_HEALTH_SECONDS:
            findings.append(f"health did not answer for {took:.1f} s")
        peak = max(peak, play.service.memory()["rss"])
        first = first or peak
        if time.monotonic() - said > _SAY_SECONDS:
            said = time.monotonic()
            print(
                f"{said - began:.0f} s: {[client.played for client in hostile]}, {peak:.0f} MB, "
                f"slowest look {slowest:.2f} s", flush=True,
            )  # fmt: skip
    if peak - first > LARGEST_GROWTH_MB:
        findings.append(f"memory grew from {first} to {peak} MB")
    if slow:
        print(f"{slow} looks took longer than {LONGEST_HEALTH_SECONDS} s", flush=True)
    return slowest, peak


def _after(play: Play) -> list[str]:
    """Return what is not as it should be once nobody means harm any more."""
    try:
        verdict, _ = play.finish(only_ours=False)
    except AssertionError as error:
        return [str(error)]
    if verdict.good:
        return []
    return [f"{kind}: {example}" for kind, examples in verdict.examples.items() for example in examples]


def _keep(hostile: Sequence[HostileClient], folder: Path) -> None:
    for number, client in enumerate(hostile):
        place = folder / f"{number}-{type(client).__name__}"
        place.mkdir(parents=True)
        for index, content in enumerate(client.recent):
            (place / f"{index:03}").write_bytes(content)


def main() -> None:
    """Fuzz, print, exit."""
    options = _options()
    work = (options.work or Path(tempfile.mkdtemp(prefix="fuzz-doors-"))).resolve()
    result = fuzz(options.bundle.resolve(), options.images, work / "fuzz", options.minutes, options.seed)
    if result["good"] and options.work is None:
        shutil.rmtree(work)
    else:
        print(f"the files are kept: {work}", flush=True)
    print(json.dumps(result))
    sys.exit(not result["good"])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True, help="a folder with JPEGs")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, help="a folder that is not there yet; default: a temporary one")
    return parser.parse_args()


if __name__ == "__main__":
    main()
