"""By which version, on what machine and when a report was made."""

import platform
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path

import msgspec

from fedmedclip.edge_client.cores import available_cores

_PROCESSORS = Path("/proc/cpuinfo")


class Origin(msgspec.Struct, frozen=True):
    """What made a report. It has no host name: reports are passed on."""

    version: str
    python: str
    machine: str
    date: str

    def sentence(self) -> str:
        """Return it as one line."""
        return f"fedmedclip {self.version} with Python {self.python} on {self.machine}; {self.date}."


def origin() -> Origin:
    """Return this installation, this machine and this minute."""
    cores = available_cores()
    system = f"{platform.system()} {platform.machine()}, {cores} core{'s' * (cores > 1)}"
    machine = ", ".join(filter(None, (system, _processor())))
    date = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    return Origin(_version(), platform.python_version(), machine, date)


def _version() -> str:
    """Return the version of the package that runs; a working copy's metadata may be those of an older one."""
    return str(import_module(__name__.partition(".")[0]).__version__)


def _processor() -> str:
    """Return the processor's name, empty where the system does not say it."""
    try:
        lines = _PROCESSORS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())
