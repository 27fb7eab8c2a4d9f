"""The systemd units: what they expose, and after which exit codes systemd itself starts them again."""

import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from fedmedclip.protocol.exit_codes import ExitCode
from tests import ROOT
from tests.conftest import missing
from tests.edge_client.conftest import write_tiny_bundle

UNITS = sorted((ROOT / "deploy").glob("*.service"))
# What `systemd-analyze security` calls exposed begins at 7, medium at 5, and below 3 it is content.
MOST_EXPOSURE = 3.0


@pytest.fixture(scope="module")
def analyze() -> str:
    tool = shutil.which("systemd-analyze")
    if tool is None:
        missing("systemd-analyze is not installed")
    return tool


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_a_unit_exposes_little(analyze, unit):
    done = subprocess.run(
        [analyze, "security", "--offline=yes", "--no-pager", unit], capture_output=True, text=True
    )
    if "offline" in done.stderr:
        pytest.skip(f"this systemd-analyze cannot judge a file: {done.stderr.strip()}")
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert found is not None, done.stderr
    assert float(found[1]) < MOST_EXPOSURE


def test_with_the_right_to_port_104_a_service_exposes_little_still(analyze, tmp_path):
    unit = (ROOT / "deploy" / "fedmedclip-serve.service").read_text()
    right = (ROOT / "deploy" / "fedmedclip-serve-port-104.conf").read_text().partition("[Service]\n")[2]
    together = tmp_path / "fedmedclip-serve.service"
    together.write_text(unit.replace("[Install]", f"{right}[Install]"))
    test_a_unit_exposes_little(analyze, together)
    test_systemd_knows_every_line_of_a_unit(analyze, together)


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_systemd_knows_every_line_of_a_unit(analyze, unit):
    done = subprocess.run([analyze, "verify", "--no-pager", unit], capture_output=True, text=True)
    of_the_unit = [line for line in done.stderr.splitlines() if unit.name in line]
    assert [line for line in of_the_unit if "is not executable" not in line] == []


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_a_unit_writes_to_its_state_directory_alone(unit):
    lines = unit.read_text().splitlines()
    assert "ProtectSystem=strict" in lines
    assert "StateDirectory=fedmedclip" in lines
    assert [line for line in lines if line.startswith(("ReadWritePaths", "BindPaths"))] == []


def denied_writable_code(arguments):
    """Run the command as `MemoryDenyWriteExecute` has it: memory that was written never becomes code."""
    deny = "import ctypes, os, sys; sys.exit(99) if ctypes.CDLL(None).prctl(65, 1, 0, 0, 0) else None; "
    run = "os.execv(sys.executable, [sys.executable, '-m', 'fedmedclip', *sys.argv[1:]])"
    done = subprocess.run(
        [sys.executable, "-c", deny + run, *map(str, arguments)],
        capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode == 99:
        pytest.skip("this kernel has no PR_SET_MDWE, which Linux 6.3 brought")
    return done


def test_an_encoder_needs_no_code_that_is_made_as_it_goes(tmp_path):
    """What a unit denies with MemoryDenyWriteExecute=, by the kernel itself, and for the processor alone."""
    denying = [unit.stem for unit in UNITS if "MemoryDenyWriteExecute=true" in unit.read_text()]
    assert denying == ["fedmedclip-aggregator", "fedmedclip-serve"]
    bundle = write_tiny_bundle(tmp_path / "bundle")
    Image.new("RGB", (40, 40)).save(tmp_path / "image.png")
    done = denied_writable_code(["predict", tmp_path / "image.png", "--bundle", bundle.folder])
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 2), done.stderr


# How the process ends, and whether it is started again.
ENDINGS = {
    f"exit {ExitCode.PASSING}": True,
    "exit 2": False,
    "exit 1": True,
    "exit 0": False,
    "kill -KILL $$$$": True,
    "exit 130": False,
}


def test_systemd_starts_again_after_what_passes_and_not_after_what_a_person_has_to_mend(tmp_path):
    """Play each ending under a user's systemd in namespaces of its own, with the units' lines on restarts."""
    manager = Path("/lib/systemd/systemd")
    if not manager.exists() or shutil.which("unshare") is None:
        missing("systemd and unshare are not installed")
    folder = tmp_path / "configuration" / "systemd" / "user"
    folder.mkdir(parents=True)
    counts = {}
    for unit in UNITS:
        for number, ending in enumerate(ENDINGS):
            name = f"{unit.stem}-{number}"
            counts[unit.stem, ending] = tmp_path / name
            (folder / f"{name}.service").write_text(ends_with(unit, f"echo >> {tmp_path / name}; {ending}"))
    wanted = " ".join(path.name for path in folder.glob("*.service"))
    (folder / "all.target").write_text(f"[Unit]\nWants={wanted}\n")
    done = play(manager, tmp_path, lambda: all(starts(counts[key]) > again(key[1]) for key in counts))
    if not any(path.exists() for path in counts.values()):
        # Not for want of something that could be installed: also in continuous integration.
        pytest.skip(f"no systemd can be started here: {done.strip() or 'it says nothing'}")
    found = {key: starts(path) for key, path in counts.items()}
    assert {key for key, count in found.items() if count > 1} == {key for key in counts if ENDINGS[key[1]]}
    assert min(found.values()) == 1


def again(ending):
    return 1 if ENDINGS[ending] else 0


def starts(path):
    return len(path.read_text().splitlines()) if path.exists() else 0


def ends_with(unit, script):
    """Return a unit with another process, that is started again at once, and without a user and a sandbox."""
    text = re.sub(r"(?m)^ExecStart=.*", f"ExecStart=/bin/sh -c '{script}'", unit.read_text())
    text = re.sub(r"(?m)^RestartSec=30$", "RestartSec=50ms", text)
    restarts = ("StartLimit", "ExecStart", "Restart", "SuccessExitStatus", "Type")
    return "\n".join(line for line in text.splitlines() if line.startswith(("[Unit", "[Service", *restarts)))


def play(manager, folder, finished):
    """Run a user's systemd until all has happened and a little longer, and return what it said."""
    runtime = folder / "runtime"
    runtime.mkdir(mode=0o700)
    script = "mount -t tmpfs none /run && mkdir -p /run/systemd/system && $0 --user --unit=all.target; exit"
    unshare = ["unshare", "--map-root-user", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    environment = {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "XDG_RUNTIME_DIR": str(runtime),
        "XDG_CONFIG_HOME": str(folder / "configuration"),
    }
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [*unshare, "sh", "-c", script, str(manager)], env=environment, stdout=log, stderr=log
        )
        until = time.monotonic() + 20
        while time.monotonic() < until and process.poll() is None and not finished():
            time.sleep(0.05)
        # A unit that must not be started again would be by now.
        time.sleep(0.5)
        process.kill()
        process.wait()
    return (folder / "log").read_text()
