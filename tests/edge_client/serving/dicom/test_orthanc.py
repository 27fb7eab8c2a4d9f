"""The whole way, with real parts: dcmtk sends images to `fedmedclip serve`, Orthanc gets its reports."""

import os
import signal
import subprocess
import sys
import time

import pytest

from fedmedclip.simulation.processes.brokers import free_port
from tests.edge_client.serving.dicom.clients import dcmtk
from tests.edge_client.serving.dicom.examples import PLANTED, image_file
from tests.edge_client.serving.dicom.orthanc import Orthanc

pytestmark = pytest.mark.slow

REPORT, CAPTURE = "1.2.840.10008.5.1.4.1.1.88.33", "1.2.840.10008.5.1.4.1.1.7"
SOON = 60.0


class Service:
    """`fedmedclip serve` as a process, with the DICOM door open."""

    def __init__(self, folder, bundle, archive):
        self.port, self._folder = free_port(), folder
        (folder / "serve.toml").write_text(
            f"""
            [serve]
            bundle = "{bundle.folder}"
            insecure = true
            [dicom]
            port = {self.port}
            peers = [{{ ae_title = "MODALITY" }}]
            reports = "reports"
            secondary_capture = true
            [[dicom.destinations]]
            ae_title = "ORTHANC"
            host = "127.0.0.1"
            port = {archive.port}
            """
        )

    def start(self):
        command = "from fedmedclip.command import main; main()"
        arguments = ["serve", "--verbose", "--config", str(self._folder / "serve.toml")]
        with (self._folder / "serve.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", command, *arguments], stdout=log, stderr=log
            )
        eventually(lambda: self.echo() == 0, self.log)

    def end(self, number):
        self.process.send_signal(number)
        return self.process.wait(30)

    def log(self):
        return (self._folder / "serve.log").read_text()

    def call(self, program, *arguments, calling="MODALITY"):
        where = ["-aet", calling, "-aec", "FEDMEDCLIP", "127.0.0.1", str(self.port)]
        return subprocess.run([dcmtk(program), *where, *map(str, arguments)], capture_output=True).returncode

    def echo(self, **changed):
        return self.call("echoscu", **changed)


def eventually(holds, why=lambda: "", seconds=SOON):
    deadline = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < deadline, why()
        time.sleep(0.2)
    return found


@pytest.fixture
def archive(tmp_path):
    (tmp_path / "archive").mkdir()
    archive = Orthanc(tmp_path / "archive")
    yield archive
    archive.stop()


@pytest.fixture
def service(tmp_path, tiny_bundle, archive):
    (tmp_path / "box").mkdir()
    service = Service(tmp_path / "box", tiny_bundle, archive)
    service.start()
    yield service
    if service.process.poll() is None:
        service.end(signal.SIGKILL)


def images(folder, count, **changed):
    paths = [folder / f"{number}.dcm" for number in range(count)]
    for number, path in enumerate(paths):
        path.write_bytes(image_file(number=number, **changed))
    return paths


def test_reports_are_in_the_archive_beside_the_images_and_no_name_is_in_a_log(service, archive, tmp_path):
    archive.start()
    sent = images(tmp_path, 3)
    # What the libraries would warn about, with a quotation.
    odd = {"SpecificCharacterSet": "PLANTED", "PatientName": "PLANTED", "StudyDate": "PLANTED"}
    sent.append(tmp_path / "odd.dcm")
    sent[-1].write_bytes(image_file(number=3, **odd))
    assert service.call("storescu", *sent) == 0
    subprocess.run(
        [dcmtk("storescu"), "-aec", "ORTHANC", "127.0.0.1", str(archive.port), *map(str, sent)], check=True
    )
    assert service.call("storescu", *sent) == 0, "the same again is acknowledged, and not answered again"
    assert service.echo(calling="STRANGER") != 0
    eventually(lambda: len(archive.get("instances")) == 12, service.log)
    [patient] = archive.get("patients?expand")
    assert patient["MainDicomTags"]["PatientID"] == "4711-SECRET"
    [study] = archive.get("studies")
    found = archive.instances()
    reports = [one for one in found if one["SOPClassUID"] == REPORT]
    assert [one["PatientName"] for one in reports].count("PLANTED^Zyxwvut") == 3
    assert len({one["SeriesInstanceUID"] for one in reports}) == 1
    assert len(archive.get(f"studies/{study}/instances")) == 12
    assert len(reports) == len([one for one in found if one["SOPClassUID"] == CAPTURE]) == 4
    assert all(one["ContentTemplateSequence"][0]["TemplateIdentifier"] == "1500" for one in reports)
    pictured = {
        one["CurrentRequestedProcedureEvidenceSequence"][0]["ReferencedSeriesSequence"][0][
            "ReferencedSOPSequence"
        ][0]["ReferencedSOPInstanceUID"]
        for one in reports
    }
    assert pictured == {f"1.2.826.0.1.3680043.8.498.{number}" for number in range(4)}
    time.sleep(1)
    assert service.end(signal.SIGTERM) == 0
    assert len(archive.get("instances")) == 12
    files = {path.stem for path in (tmp_path / "box" / "reports").iterdir()}
    assert files == {one["SOPInstanceUID"] for one in found if one["SOPClassUID"] in (REPORT, CAPTURE)}
    assert not [word for word in PLANTED if word in service.log()]
    state = tmp_path / "box" / "serve-state"
    left = b"".join(path.read_bytes() for path in state.rglob("*") if path.is_file())
    assert not [word for word in PLANTED if word.encode() in left]


def test_killed_while_the_archive_is_away_each_report_arrives_once(service, archive, tmp_path):
    assert service.call("storescu", *images(tmp_path, 5)) == 0
    service.end(signal.SIGKILL)
    service.start()
    eventually(lambda: "cannot be reached" in service.log(), service.log)
    service.end(signal.SIGKILL)
    archive.start()
    service.start()
    eventually(lambda: len(archive.get("instances")) == 10, service.log)
    time.sleep(1)
    found = archive.instances()
    assert sorted(one["SOPClassUID"] for one in found) == sorted([REPORT] * 5 + [CAPTURE] * 5)
    assert service.end(signal.SIGTERM) == 0


def test_a_large_multi_frame_image_passes_without_its_size_in_memory(service, archive, tmp_path):
    """300 MB of frames: the service may not grow by half of it."""
    archive.start()
    frames = 100
    pixels = os.urandom(1 << 20) * 3
    start = image_file(NumberOfFrames=str(frames), Rows=1536, Columns=2048)
    head = start[: start.index(b"\xe0\x7f\x10\x00OW")]
    path = tmp_path / "large.dcm"
    with path.open("wb") as file:
        file.write(head + b"\xe0\x7f\x10\x00OW\0\0" + (frames * len(pixels)).to_bytes(4, "little"))
        for _ in range(frames):
            file.write(pixels)
    assert service.call("storescu", *images(tmp_path, 1)) == 0
    eventually(lambda: len(archive.get("instances")) == 2, service.log)
    before = memory(service.process.pid, "VmRSS")
    assert service.call("storescu", path) == 0
    assert memory(service.process.pid, "VmHWM") - before < 150_000_000
    eventually(lambda: len(archive.get("instances")) == 4, service.log)
    assert memory(service.process.pid, "VmHWM") - before < 150_000_000


def memory(process, name):
    """A figure of the process's memory, in bytes."""
    with open(f"/proc/{process}/status") as file:
        [line] = [line for line in file if line.startswith(name)]
    return int(line.split()[1]) * 1024
