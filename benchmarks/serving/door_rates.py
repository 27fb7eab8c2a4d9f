"""How many images a second go through a door, from the first answers on, as for `predict`."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

from benchmarks.serving.http_traffic import closed_loop
from benchmarks.serving.pictures import DicomPicture
from benchmarks.serving.resident import Resident

HTTP_CONNECTIONS = 8
_LOOK_SECONDS = 0.2
_LONGEST_SECONDS = 600.0


def predict_rate(bundle: Path, folder: Path, threads: int) -> float:
    """Return the images a second of `fedmedclip predict FOLDER`, without its start."""
    command = [
        sys.executable,
        "-m",
        "fedmedclip",
        "predict",
        "--bundle",
        str(bundle),
        str(folder),
        "--insecure",
    ]
    process = subprocess.Popen(
        [*command, "--format", "jsonl", "--provenance", "none", "--threads", str(threads)],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    assert process.stdout is not None
    times = [time.perf_counter() for _ in process.stdout]
    assert process.wait() == 0, "fedmedclip predict failed"
    first, seconds = times[0], times[-1] - times[0]
    # Rows come by batches: all of the first count as its time's end.
    at_first = sum(at - first < 0.002 for at in times)
    return (len(times) - at_first) / seconds


def http_rate(service: Resident, requests: Sequence[bytes]) -> float:
    """Return the answers a second on several connections, each request sent once."""
    traffic = closed_loop(service.port, requests, HTTP_CONNECTIONS, 0.0, len(requests))
    assert traffic.statuses[200] == len(requests), f"answers: {dict(traffic.statuses)}"
    return traffic.rate


def dicom_rate(service: Resident, port: int, pictures: Sequence[DicomPicture]) -> float:
    """Return the images a second by one association of `storescu`; each is sent with a UID of its own."""
    with tempfile.TemporaryDirectory() as folder:
        for picture in pictures:
            uid, content = picture.copy()
            (Path(folder) / f"{uid}.dcm").write_bytes(content)
        before = service.answered("dicom")
        command = ["storescu", "--propose-uncompr", "--aetitle", "MODALITY", "--call", "FEDMEDCLIP"]
        with subprocess.Popen(
            [*command, "127.0.0.1", str(port), "+sd", folder], stdout=subprocess.DEVNULL
        ) as sender:
            rate = _rate(service, "dicom", before, len(pictures))
        assert sender.returncode == 0, "storescu failed"
        return rate


def folder_rate(service: Resident, watch: Path, contents: Sequence[bytes]) -> float:
    """Return the images a second of files that appear in the watch folder at once."""
    before = service.answered("folder")
    for content in contents:
        name = f"{uuid.uuid4().hex}.jpg"
        (watch / f".{name}").write_bytes(content)
        os.replace(watch / f".{name}", watch / name)
    rate = _rate(service, "folder", before, len(contents))
    shutil.rmtree(watch, ignore_errors=True)
    watch.mkdir(exist_ok=True)
    return rate


def has_storescu() -> bool:
    """Whether DCMTK's client is installed."""
    return shutil.which("storescu") is not None


def _rate(service: Resident, door: str, before: int, count: int) -> float:
    """Return the answers a second between the first look that finds any and the one that finds all."""
    until, first = time.monotonic() + _LONGEST_SECONDS, (0, 0.0)
    while (found := service.answered(door) - before) < count:
        if found and not first[0]:
            first = found, time.perf_counter()
        assert time.monotonic() < until, f"{door}: {found} of {count} are answered"
        time.sleep(_LOOK_SECONDS)
    assert first[0], f"{door}: so few images are answered before anybody looks; give more"
    return (count - first[0]) / (time.perf_counter() - first[1])
