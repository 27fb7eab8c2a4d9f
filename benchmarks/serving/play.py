"""A real service, clients at all its doors and an archive, from the first start to the verdict."""

import time
from pathlib import Path

from benchmarks.liveness.forking import ForkServer
from benchmarks.serving.archive import AE_TITLE, Archive
from benchmarks.serving.expected import Said, names, predicted
from benchmarks.serving.pictures import DicomPicture, jpegs
from benchmarks.serving.resident import Resident, free_port
from benchmarks.serving.senders import DicomSender, FolderSender, HttpSender, Sender
from benchmarks.serving.verdict import (
    Rows,
    Verdict,
    judge_dicom,
    judge_folder,
    judge_http,
    judge_left_over,
)

PICTURES = 24
PAUSE_SECONDS = 0.15
DRAIN_SECONDS = 300.0
# Of a service that has nothing to do; the second where files of the watch folder have no answer.
RESTING_SECONDS, LOST_SECONDS = 1.0, 60.0
_LARGEST_PICTURE_BYTES = 30_000
_WORDS_OF_FAULTS = ("Traceback", "internal error")


class Play:
    """The service in `folder` with its clients and its archive, from the first start to the verdict."""

    def __init__(
        self,
        bundle: Path,
        images: Path,
        folder: Path,
        seed: int,
        server: ForkServer | None,
        pause_seconds: float = PAUSE_SECONDS,
    ) -> None:
        self.folder = folder
        self.watch = folder / "watch"
        self.watch.mkdir(parents=True)
        found = [content for content in jpegs(images, 8 * PICTURES) if len(content) < _LARGEST_PICTURE_BYTES]
        self.contents = contents = found[:PICTURES]
        self.dicoms = dicoms = [DicomPicture(content) for content in contents]
        self.expected = _expected(bundle, folder / "expected", contents, dicoms)
        self.archive = Archive(seed)
        self.dicom_port = free_port()
        self.service = Resident(
            folder / "service",
            {
                "serve": {"bundle": str(bundle), "insecure": True, "state": "state"},
                "folder": {"path": str(self.watch), "poll_seconds": 0.3, "settle_seconds": 0.3},
                "dicom": {
                    "port": self.dicom_port,
                    "any_peer": True,
                    "destinations": [{"ae_title": AE_TITLE, "host": "127.0.0.1", "port": self.archive.port}],
                },
            },
            server,
        )
        self.https = [
            HttpSender(f"{seed} http {number}", self.service.port, contents, pause_seconds)
            for number in (1, 2)
        ]
        self.dicom = DicomSender(f"{seed} dicom", self.dicom_port, dicoms, pause_seconds)
        self.files = FolderSender(f"{seed} folder", self.watch, contents, pause_seconds)
        self.senders: list[Sender] = [*self.https, self.dicom, self.files]

    def start(self) -> None:
        """Start all."""
        self.service.start()
        self.service.wait_until_ready()
        for sender in self.senders:
            sender.start()

    def finish(self, *, only_ours: bool = True) -> tuple[Verdict, float]:
        """Let it answer what it has, show that it goes on, judge; return the seconds until all was done.

        Without `only_ours`, others sent as well, and what is there of them is not judged.
        """
        self.service.wait_until_ready()
        for sender in self.senders:
            sender.stop()
        seconds = self._drained()
        for sender in self.senders:
            sender.send(0)
        self._drained()
        self.dicom.release()
        self.service.stop()
        return self._verdict(only_ours), seconds

    def end(self) -> None:
        """Kill the service where it still runs."""
        if not self.service.ended:
            self.service.kill()

    def close(self) -> None:
        """End what still runs."""
        self.end()
        self.archive.close()

    def _drained(self) -> float:
        """Wait until nothing waits; return for how long. AssertionError where something waits for ever."""
        began = since = time.monotonic()
        while since + self._resting_seconds() > time.monotonic():
            assert time.monotonic() - began < DRAIN_SECONDS, f"still waits: {self._waiting()}"
            time.sleep(0.2)
            if any(self._waiting().values()):
                since = time.monotonic()
        return since - began

    def _resting_seconds(self) -> float:
        there = all((self.watch / f"{name}.json").exists() for name in list(self.files.acknowledged))
        return RESTING_SECONDS if there else LOST_SECONDS

    def _waiting(self) -> dict[str, float]:
        lines = self.service.get("/metrics")[1].decode().splitlines()
        found = [
            line.rpartition(" ")
            for line in lines
            if line.startswith(("fedmedclip_waiting", "fedmedclip_deliv"))
        ]
        return {name: float(value) for name, _, value in found}

    def _verdict(self, only_ours: bool) -> Verdict:
        verdict, rows = Verdict(), Rows(self.service.state)
        by_jpeg, by_dicom = self.expected
        for client in self.https:
            judge_http(verdict, rows, client.acknowledged, by_jpeg)
        judge_dicom(verdict, rows, self.dicom.acknowledged, by_dicom, self._reports(only_ours))
        judge_folder(verdict, rows, self.files.acknowledged, by_jpeg, self.watch, only_ours=only_ours)
        judge_left_over(verdict, rows, self.service.state, only_ours=only_ours)
        for sender in self.senders:
            for fault in sender.faults:
                verdict.count("sender_faults", fault)
        for line in self.service.log.read_text(errors="replace").splitlines():
            if any(word in line for word in _WORDS_OF_FAULTS):
                verdict.count("sender_faults", f"in the log: {line}")
        return verdict

    def _reports(self, only_ours: bool) -> dict[str, list[str]]:
        reports = self.archive.reports()
        return {uid: found for uid, found in reports.items() if only_ours or uid in self.dicom.acknowledged}


def _expected(
    bundle: Path, folder: Path, contents: list[bytes], dicoms: list[DicomPicture]
) -> tuple[list[Said], list[Said]]:
    kinds = {
        "jpg": dict(zip(names(len(contents), "jpg"), contents, strict=True)),
        "dcm": dict(zip(names(len(dicoms), "dcm"), [image.content for image in dicoms], strict=True)),
    }
    by_jpeg, by_dicom = (predicted(bundle, folder / kind, files) for kind, files in kinds.items())
    return by_jpeg, by_dicom
