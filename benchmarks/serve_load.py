"""The resident service under load: how quick, how many, how much memory; beside `fedmedclip predict`.

    python -m benchmarks.serve_load --images FOLDER --work FOLDER [--bundle BUNDLE] [--quick] [--doors
    http,dicom,folder]
        [--seconds 8] [--turns 5] [--requests 100000] [--long-bundle BUNDLE]

A real `fedmedclip serve` with a ViT-B/32 in int8 (random weights: speed does not depend on them), and real
JPEGs. Each turn measures, one after the other, so that noise of the machine touches all alike: the
encoder's own time for an image (in another process, opened as the service opens it, and in the quickest way
there is, all threads on one image), single requests on a kept-alive connection, `fedmedclip predict
FOLDER`, the doors' sustained rates, and requests at 70 % of the sustained rate, evenly spaced and at random
times (Poisson), open loop: a request's time counts from when it was due. Ratios are of one turn, and their
median is given. Then `--requests` requests go to a service with a small model, as quick as it takes them,
for the memory that grows with them. The last line is one JSON object. The client is one thread, whose
processor time is said.
"""

import argparse
import json
import os
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.encoder.random_bundles import random_bundle
from benchmarks.serving.door_rates import (
    HTTP_CONNECTIONS,
    dicom_rate,
    folder_rate,
    has_storescu,
    http_rate,
    predict_rate,
)
from benchmarks.serving.encoder_clock import EncoderClock
from benchmarks.serving.http_traffic import Traffic, closed_loop, open_loop, poisson_times, request
from benchmarks.serving.memory_slope import MemoryWatch
from benchmarks.serving.pictures import DicomPicture, jpegs
from benchmarks.serving.resident import Resident, free_port

DOORS = ("http", "dicom", "folder")
SHARE_OF_RATE = 0.7
GOALS = {
    "p50_over_encoder": 1.3,
    "paced_p99_over_encoder": 3.0,
    "rate_over_predict": 0.9,
    "peak_rss_mb": 250.0,
}
_CLOCK_SHARE = 0.25
_LONG_SECONDS = 3600.0

Samples = defaultdict[str, list[float]]


def main() -> None:
    """Measure, print the JSON."""
    options = _options()
    options.work.mkdir(parents=True, exist_ok=True)
    bundle = options.bundle or random_bundle("ViT-B-32", "int8", options.work)
    results: dict[str, Any] = {"load_before": os.getloadavg()[0], "threads": options.threads}
    with tempfile.TemporaryDirectory(dir=options.work) as folder:
        results |= _measured(bundle, Path(folder), options)
    if options.requests:
        small = options.long_bundle or random_bundle("phantom-clip", "int8", options.work)
        with tempfile.TemporaryDirectory(dir=options.work) as folder:
            found = long_run(small, Path(folder), options)
        results |= {f"long_{name}": value for name, value in found.items()}
    results |= {"load_after": os.getloadavg()[0]}
    results |= {f"goal_{name}": goal for name, goal in GOALS.items()}
    print(json.dumps(results))


def _measured(bundle: Path, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    contents = jpegs(options.images, options.count)
    pictures = folder / "pictures"
    pictures.mkdir()
    for number, content in enumerate(contents):
        (pictures / f"{number:04}.jpg").write_bytes(content)
    samples: Samples = defaultdict(list)
    with (
        EncoderClock(bundle, pictures, options.threads, together=options.together) as clock,
        _service(bundle, folder, options) as serving,
    ):
        service, doors = serving
        watch = MemoryWatch(service, "http")
        requests = [request(service.port, content) for content in contents]
        closed_loop(service.port, requests, 1, 0.0, 5)
        after_start = service.memory()
        for turn in range(options.turns):
            _turn(clock, service, doors, requests, samples, options, turn, bundle, pictures, contents)
            print(json.dumps({name: round(values[-1], 4) for name, values in samples.items()}), flush=True)
        watch.stop()
        memory = {f"after_start_{name}_mb": value for name, value in after_start.items()}
        memory |= {**watch.peak(), "peak_rss_mb": service.memory()["peak_rss"]}
    medians = {name: round(statistics.median(values), 4) for name, values in samples.items()}
    return {"bundle": bundle.name, "turns": options.turns, **medians, **memory}


def _turn(
    clock: EncoderClock,
    service: Resident,
    doors: dict[str, Callable[[Sequence[bytes]], float]],
    requests: Sequence[bytes],
    samples: Samples,
    options: argparse.Namespace,
    turn: int,
    bundle: Path,
    pictures: Path,
    contents: Sequence[bytes],
) -> None:
    """Measure everything once, and add it to the samples."""
    seconds = options.seconds
    before = clock.milliseconds(seconds * _CLOCK_SHARE)
    cpu = service.cpu_seconds()
    alone = closed_loop(service.port, requests, 1, seconds)
    after = clock.milliseconds(seconds * _CLOCK_SHARE)
    own = {mode: (before[mode] + after[mode]) / 2 for mode in before}
    for mode, milliseconds in own.items():
        samples[f"encoder_{mode}_ms"].append(milliseconds)
    samples["noise_encoder_after_over_before"].append(min(after.values()) / min(before.values()))
    samples["alone_p50_ms"].append(1000 * alone.percentile(50))
    samples["p50_over_encoder"].append(1000 * alone.percentile(50) / own["own"])
    samples["p50_over_quickest"].append(1000 * alone.percentile(50) / own["quickest"])
    samples["service_cpu_ms_an_image"].append(1000 * (service.cpu_seconds() - cpu) / len(alone.seconds))
    samples["client_cpu_ms_a_request"].append(1000 * alone.client_cpu_seconds / len(alone.seconds))
    predicted = predict_rate(bundle, pictures, options.threads)
    samples["predict_rate"].append(predicted)
    for door, rate_of in doors.items():
        rate = rate_of(contents)
        samples[f"{door}_rate"].append(rate)
        samples[f"{door}_rate_over_predict"].append(rate / predicted)
    sustained = closed_loop(service.port, requests, HTTP_CONNECTIONS, seconds)
    rate = SHARE_OF_RATE * sustained.rate
    arrivals: dict[str, Iterator[float]] = {
        "paced": (number / rate for number in range(int(2 * seconds * rate))),
        "poisson": poisson_times(rate, 2 * seconds, turn),
    }
    for name, times in arrivals.items():
        _add_open_loop(name, open_loop(service.port, requests, times), own["own"], samples)


def _add_open_loop(name: str, traffic: Traffic, own_milliseconds: float, samples: Samples) -> None:
    for percent in (50, 95, 99):
        samples[f"{name}_p{percent}_ms"].append(1000 * traffic.percentile(percent))
    samples[f"{name}_p99_over_encoder"].append(1000 * traffic.percentile(99) / own_milliseconds)
    samples[f"{name}_refused"].append(sum(traffic.statuses.values()) - traffic.statuses[200])
    samples["client_share_of_a_core"].append(traffic.client_cpu_seconds / traffic.wall_seconds)


@contextmanager
def _service(
    bundle: Path, folder: Path, options: argparse.Namespace
) -> Iterator[tuple[Resident, dict[str, Callable[[Sequence[bytes]], float]]]]:
    """Give a running service, and by door that is asked for, what measures its rate with these images."""
    watch, port = folder / "watch", free_port()
    watch.mkdir()
    tables: dict[str, Any] = {"serve": {"bundle": str(bundle.resolve()), "insecure": True}}
    if "folder" in options.doors:
        tables["folder"] = {"path": str(watch), "poll_seconds": 0.2, "settle_seconds": 0.2}
    if "dicom" in options.doors:
        tables["dicom"] = {"port": port, "any_peer": True}
        if options.reports:
            tables["dicom"]["reports"] = str(folder / "reports")
    if options.together:
        tables["resources"] = {"together": True}
    service = Resident(folder / "service", tables, threads=options.threads)
    made: dict[bytes, DicomPicture] = {}

    def dicoms(contents: Sequence[bytes]) -> list[DicomPicture]:
        return [made.setdefault(content, DicomPicture(content)) for content in contents]

    rates: dict[str, Callable[[Sequence[bytes]], float]] = {
        "http": lambda contents: http_rate(service, [request(service.port, content) for content in contents]),
        "dicom": lambda contents: dicom_rate(service, port, dicoms(contents)),
        "folder": lambda contents: folder_rate(service, watch, contents),
    }
    service.start()
    try:
        service.wait_until_ready()
        yield service, {door: rates[door] for door in options.doors}
    finally:
        service.stop()


def long_run(bundle: Path, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Send many requests to a service with a small model; return how its memory grew with them."""
    service = Resident(
        folder, {"serve": {"bundle": str(bundle.resolve()), "insecure": True}}, threads=options.threads
    )
    service.start()
    try:
        service.wait_until_ready()
        requests = [request(service.port, content) for content in jpegs(options.images, options.count)]
        watch = MemoryWatch(service, "http")
        traffic = closed_loop(service.port, requests, HTTP_CONNECTIONS, _LONG_SECONDS, options.requests)
        watch.stop()
        count = len(traffic.seconds)
        return {
            "requests": count,
            "answered": traffic.statuses[200],
            "rate": round(traffic.rate, 1),
            "bytes_per_request": round(watch.bytes_per_request(), 1),
            "first_rss_mb": watch.samples[0][1],
            "last_rss_mb": watch.samples[-1][1],
            **watch.peak(),
            "disk_bytes_per_request": round(_size(service.state) / count, 1),
            "client_share_of_a_core": round(traffic.client_cpu_seconds / traffic.wall_seconds, 3),
        }
    finally:
        service.stop()


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=Path, required=True, help="a folder with JPEGs")
    parser.add_argument("--work", type=Path, required=True, help="keeps bundles between runs")
    parser.add_argument("--bundle", type=Path, help="default: a ViT-B/32 in int8 with random weights")
    parser.add_argument(
        "--long-bundle", type=Path, help="of the long run; default: the repository's small CLIP"
    )
    parser.add_argument("--doors", default=",".join(DOORS), help="whose rates are measured")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--together", action="store_true", help="the service has all threads on each image")
    parser.add_argument("--count", type=int, default=200, help="images of a folder")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=8.0, help="of each measurement of a turn")
    parser.add_argument("--requests", type=int, default=100_000, help="of the long run; 0 for none")
    parser.add_argument("--reports", action="store_true", help="DICOM writes reports, too")
    parser.add_argument(
        "--quick", action="store_true", help="one short turn, 500 requests: only the plumbing"
    )
    options = parser.parse_args()
    # Paths of a configuration are relative to its own folder.
    options.work = options.work.resolve()
    if options.quick:
        options.turns, options.seconds, options.count, options.requests = (
            1,
            1.0,
            40,
            min(options.requests, 500),
        )
    options.doors = [door for door in options.doors.split(",") if door]
    if unknown := set(options.doors) - set(DOORS):
        parser.error(f"there is no door {', '.join(unknown)}; there are {', '.join(DOORS)}")
    if "dicom" in options.doors and not has_storescu():
        parser.error("the DICOM door is measured with storescu: install dcmtk, or leave it out of --doors")
    return options


if __name__ == "__main__":
    main()
