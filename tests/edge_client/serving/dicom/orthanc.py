"""A real archive for the tests: Orthanc, on free ports of the loopback interface, its files in a folder."""

import json
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path

from fedmedclip.simulation.processes.brokers import free_port
from tests.conftest import missing

START_SECONDS = 30.0


def find_orthanc():
    """The program; the test is skipped without it."""
    for name in ("Orthanc", "/usr/sbin/Orthanc"):
        if found := shutil.which(name):
            return found
    missing("no Orthanc: apt-get install orthanc")
    raise AssertionError


class Orthanc:
    """Runs from `start` to `stop`; what it stores stays for the next start."""

    def __init__(self, folder: Path) -> None:
        self.port, self._http = free_port(), free_port()
        self._folder = folder
        self._process = None
        settings = {
            "Name": "test",
            "StorageDirectory": str(folder / "db"),
            "IndexDirectory": str(folder / "db"),
            "HttpPort": self._http,
            "DicomPort": self.port,
            "DicomAet": "ORTHANC",
            "DicomCheckCalledAet": True,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "Plugins": [],
            # Else the same instance would be taken in silence, and nothing would tell that it came twice.
            "OverwriteInstances": True,
        }
        (folder / "orthanc.json").write_text(json.dumps(settings))

    def start(self) -> None:
        with (self._folder / "orthanc.log").open("ab") as log:
            self._process = subprocess.Popen(
                [find_orthanc(), str(self._folder / "orthanc.json")], stdout=log, stderr=log
            )
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            try:
                self.get("system")
                return
            except OSError:
                time.sleep(0.1)
        raise AssertionError((self._folder / "orthanc.log").read_text()[-2000:])

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
            self._process = None

    def get(self, path):
        """What the REST interface answers."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._http}/{path}", timeout=10) as answer:
            return json.load(answer)

    def instances(self):
        """The tags of each stored instance, by their names."""
        return [self.get(f"instances/{one}/simplified-tags") for one in self.get("instances")]
